-- Functions and procedures that Kea's servers and kea-admin call by name.

create function isJsonSupported() returns boolean deterministic no sql return true
-- @
-- Returns which limit of a user context is reached, or an empty text.
create function checkLease4Limits(user_context text) returns text reads sql data
begin
    declare message text default '';
    if user_context = '' then
        return '';
    end if;
    select concat(name, ' has ', ifnull(leases, 0), ' leases of at most ', maximum)
    into message
    from (
        select number, concat('class ', name) as name, leases, maximum
        from json_table(user_context, '$.ISC.limits."client-classes"[*]' columns (
            number for ordinality,
            name varchar(128) path '$.name',
            maximum bigint path '$."address-limit"'
        )) as classes left join lease4_stat_by_client_class on client_class = name
        union all
        select 4294967295, concat('subnet ', id), leases, maximum
        from json_table(user_context, '$.ISC.limits.subnet' columns (
            id bigint path '$.id',
            maximum bigint path '$."address-limit"'
        )) as subnet left join lease4_stat on subnet_id = id and state = 0
    ) as limited
    where maximum <= ifnull(leases, 0) order by number limit 1;
    return message;
end
-- @
create function checkLease6Limits(user_context text) returns text reads sql data
begin
    declare message text default '';
    if user_context = '' then
        return '';
    end if;
    select concat(
        name, ' has ', ifnull(leases, 0), if(kind = 0, ' addresses', ' prefixes'),
        ' of at most ', maximum
    )
    into message
    from (
        select number, kind, concat('class ', name) as name, leases,
            if(kind = 0, addresses, prefixes) as maximum
        from json_table(user_context, '$.ISC.limits."client-classes"[*]' columns (
            number for ordinality,
            name varchar(128) path '$.name',
            addresses bigint path '$."address-limit"',
            prefixes bigint path '$."prefix-limit"'
        )) as classes cross join (select 0 as kind union all select 2) as kinds
            left join lease6_stat_by_client_class on client_class = name and lease_type = kind
        union all
        select 4294967295, kind, concat('subnet ', id), leases,
            if(kind = 0, addresses, prefixes)
        from json_table(user_context, '$.ISC.limits.subnet' columns (
            id bigint path '$.id',
            addresses bigint path '$."address-limit"',
            prefixes bigint path '$."prefix-limit"'
        )) as subnet cross join (select 0 as kind union all select 2) as kinds
            left join lease6_stat on subnet_id = id and lease_type = kind and state = 0
    ) as limited
    where maximum <= ifnull(leases, 0) order by number, kind limit 1;
    return message;
end
-- @
-- Returns bytes as they are written in a lease file.
create function lease_file_bytes(bytes varbinary(255)) returns text deterministic no sql
begin
    declare digits text default lower(hex(ifnull(bytes, '')));
    declare colon int default 3;
    while colon < length(digits) do
        set digits = insert(digits, colon, 0, ':');
        set colon = colon + 3;
    end while;
    return digits;
end
-- @
create function lease_file_text(value text) returns text deterministic no sql
return replace(ifnull(value, ''), ',', '&#x2c')
-- @
create function bytes_of_lease_file(value text) returns varbinary(255) deterministic no sql
return unhex(replace(value, ':', ''))
-- @
create function text_of_lease_file(value text) returns text deterministic no sql
return replace(value, '&#x2c', ',')
-- @
create procedure lease4DumpHeader()
select concat(
    'address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,',
    'state,user_context'
    , ',pool_id' -- @35
) as header
-- @
create procedure lease4DumpData()
select inet_ntoa(address), lease_file_bytes(hwaddr), lease_file_bytes(client_id), valid_lifetime,
    unix_timestamp(expire), subnet_id, fqdn_fwd, fqdn_rev, lease_file_text(hostname), state,
    lease_file_text(user_context)
    , pool_id -- @35
from lease4 order by address
-- @
create procedure lease6DumpHeader()
select concat(
    'address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,',
    'fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context,hwtype,hwaddr_source'
    , ',pool_id' -- @35
) as header
-- @
create procedure lease6DumpData()
select
    address, -- @14
    inet6_ntoa(address), -- @35
    lease_file_bytes(duid), valid_lifetime, unix_timestamp(expire), subnet_id, pref_lifetime,
    lease_type, iaid, prefix_len, fqdn_fwd, fqdn_rev, lease_file_text(hostname),
    lease_file_bytes(hwaddr), state, lease_file_text(user_context), hwtype, hwaddr_source
    , pool_id -- @35
from lease6 order by lease6.address
-- @
create procedure lease4Upload(
    in address varchar(15), in hwaddr varchar(64), in client_id varchar(765),
    in valid_lifetime int unsigned, in expire bigint unsigned, in subnet_id int unsigned,
    in fqdn_fwd boolean, in fqdn_rev boolean, in hostname varchar(255), in state int unsigned,
    in user_context text
    , in pool_id int unsigned -- @35
)
modifies sql data
insert into lease4
set lease4.address = inet_aton(address),
    lease4.hwaddr = bytes_of_lease_file(hwaddr),
    lease4.client_id = nullif(bytes_of_lease_file(client_id), ''),
    lease4.valid_lifetime = valid_lifetime,
    lease4.expire = from_unixtime(expire),
    lease4.subnet_id = subnet_id,
    lease4.fqdn_fwd = fqdn_fwd,
    lease4.fqdn_rev = fqdn_rev,
    lease4.hostname = text_of_lease_file(hostname),
    lease4.state = state,
    lease4.pool_id = pool_id, -- @35
    lease4.user_context = nullif(text_of_lease_file(user_context), '')
-- @
create procedure lease6Upload(
    in address varchar(39), in duid varchar(390), in valid_lifetime int unsigned,
    in expire bigint unsigned, in subnet_id int unsigned, in pref_lifetime int unsigned,
    in lease_type tinyint, in iaid int unsigned, in prefix_len tinyint unsigned,
    in fqdn_fwd boolean, in fqdn_rev boolean, in hostname varchar(255), in hwaddr varchar(64),
    in state int unsigned, in user_context text, in hwtype smallint unsigned,
    in hwaddr_source int unsigned
    , in pool_id int unsigned -- @35
)
modifies sql data
insert into lease6
set lease6.address = address, -- @14
set lease6.address = inet6_aton(address), -- @35
    lease6.duid = bytes_of_lease_file(duid),
    lease6.valid_lifetime = valid_lifetime,
    lease6.expire = from_unixtime(expire),
    lease6.subnet_id = subnet_id,
    lease6.pref_lifetime = pref_lifetime,
    lease6.lease_type = lease_type,
    lease6.iaid = iaid,
    lease6.prefix_len = prefix_len,
    lease6.fqdn_fwd = fqdn_fwd,
    lease6.fqdn_rev = fqdn_rev,
    lease6.hostname = text_of_lease_file(hostname),
    lease6.hwaddr = nullif(bytes_of_lease_file(hwaddr), ''),
    lease6.hwtype = hwtype,
    lease6.hwaddr_source = hwaddr_source,
    lease6.state = state,
    lease6.pool_id = pool_id, -- @35
    lease6.user_context = nullif(text_of_lease_file(user_context), '')
