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
-- Fields of a lease file: bytes are hexadecimal numbers with colons between them, and a text has
-- `&#x2c` for each comma. An uploaded file has `&#x26` for `&`, because `kea-admin` sends it
-- through `kea-lfc`. Kea's own functions keep that in the tables, and their dump has `&` as it is.
create function lease_file_hex(bytes varbinary(255)) returns varchar(765) deterministic no sql
begin
    declare digits varchar(510) default lower(hex(ifnull(bytes, '')));
    declare field varchar(765) default left(digits, 2);
    declare at_digit int default 3;
    while at_digit < length(digits) do
        set field = concat(field, ':', substring(digits, at_digit, 2));
        set at_digit = at_digit + 2;
    end while;
    return field;
end
-- @
create function lease_file_unhex(field varchar(765)) returns varbinary(255) deterministic no sql
begin
    declare digits varchar(765) default replace(ifnull(field, ''), ':', '');
    declare bytes varbinary(255) default unhex(digits);
    if bytes is null or length(digits) % 2 <> 0 then
        signal sqlstate '22018' set message_text = 'invalid hexadecimal digits in a lease';
    end if;
    return bytes;
end
-- @
create function lease_file_unescape(field text) returns text deterministic no sql
    return replace(replace(ifnull(field, ''), '&#x2c', ','), '&#x26', '&')
-- @
-- Returns the seconds of the column `expire`. A lease file adds an infinite lifetime, a number, to
-- the time when the client was heard; the tables have that time alone.
create function lease_file_expire(expire bigint unsigned, valid_lifetime int unsigned)
returns bigint unsigned deterministic no sql
    return if(
        valid_lifetime = 4294967295 and expire >= valid_lifetime, expire - valid_lifetime, expire
    )
-- @
create procedure lease4DumpHeader()
    select 'address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,'
        'hostname,state,user_context'
        ',pool_id' -- @35
    as header
-- @
create procedure lease6DumpHeader()
    select 'address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,'
        'prefix_len,fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context,hwtype,hwaddr_source'
        ',pool_id' -- @35
    as header
-- @
create procedure lease4DumpData()
    select
        inet_ntoa(address) as address,
        lease_file_hex(hwaddr) as hwaddr,
        lease_file_hex(client_id) as client_id,
        valid_lifetime,
        unix_timestamp(expire) as expire,
        subnet_id,
        fqdn_fwd,
        fqdn_rev,
        replace(hostname, ',', '&#x2c') as hostname,
        state,
        replace(ifnull(user_context, ''), ',', '&#x2c') as user_context
        , pool_id -- @35
    from lease4
    order by lease4.address
-- @
create procedure lease6DumpData()
    select
        address, -- @14
        inet6_ntoa(address) as address, -- @35
        lease_file_hex(duid) as duid,
        valid_lifetime,
        unix_timestamp(expire) as expire,
        subnet_id,
        pref_lifetime,
        lease_type,
        iaid,
        prefix_len,
        fqdn_fwd,
        fqdn_rev,
        replace(hostname, ',', '&#x2c') as hostname,
        lease_file_hex(hwaddr) as hwaddr,
        state,
        replace(ifnull(user_context, ''), ',', '&#x2c') as user_context,
        hwtype,
        hwaddr_source
        , pool_id -- @35
    from lease6
    order by lease6.address
-- @
-- An absent client id or user context is NULL. Not so a hardware address or a hostname: Kea's
-- servers cannot read a DHCPv4 lease without them.
create procedure lease4Upload(
    in address varchar(15), in hwaddr varchar(64), in client_id varchar(765),
    in valid_lifetime int unsigned, in expire bigint unsigned, in subnet_id int unsigned,
    in fqdn_fwd boolean, in fqdn_rev boolean, in hostname varchar(255), in state int unsigned,
    in user_context text
    , in pool_id int unsigned -- @35
)
    insert into lease4 set
        lease4.address = inet_aton(address),
        lease4.hwaddr = lease_file_unhex(hwaddr),
        lease4.client_id = nullif(lease_file_unhex(client_id), ''),
        lease4.valid_lifetime = valid_lifetime,
        lease4.expire = from_unixtime(lease_file_expire(expire, valid_lifetime)),
        lease4.subnet_id = subnet_id,
        lease4.fqdn_fwd = fqdn_fwd,
        lease4.fqdn_rev = fqdn_rev,
        lease4.hostname = lease_file_unescape(hostname),
        lease4.state = state,
        lease4.user_context = nullif(lease_file_unescape(user_context), '')
        , lease4.pool_id = pool_id -- @35
-- @
-- Without a hardware address, its type and its source are absent too.
create procedure lease6Upload(
    in address varchar(39), in duid varchar(390), in valid_lifetime int unsigned,
    in expire bigint unsigned, in subnet_id int unsigned, in pref_lifetime int unsigned,
    in lease_type tinyint, in iaid int unsigned, in prefix_len tinyint unsigned,
    in fqdn_fwd boolean, in fqdn_rev boolean, in hostname varchar(255), in hwaddr varchar(64),
    in state int unsigned, in user_context text, in hwtype smallint unsigned,
    in hwaddr_source int unsigned
    , in pool_id int unsigned -- @35
)
    insert into lease6 set
        lease6.address = if(is_ipv6(address), address, null), -- @14
        lease6.address = if(is_ipv6(address), inet6_aton(address), null), -- @35
        lease6.duid = lease_file_unhex(duid),
        lease6.valid_lifetime = valid_lifetime,
        lease6.expire = from_unixtime(lease_file_expire(expire, valid_lifetime)),
        lease6.subnet_id = subnet_id,
        lease6.pref_lifetime = pref_lifetime,
        lease6.lease_type = lease_type,
        lease6.iaid = iaid,
        lease6.prefix_len = prefix_len,
        lease6.fqdn_fwd = fqdn_fwd,
        lease6.fqdn_rev = fqdn_rev,
        lease6.hostname = lease_file_unescape(hostname),
        lease6.hwaddr = nullif(lease_file_unhex(hwaddr), ''),
        lease6.state = state,
        lease6.user_context = nullif(lease_file_unescape(user_context), ''),
        lease6.hwtype = if(hwaddr <> '', hwtype, null),
        lease6.hwaddr_source = if(hwaddr <> '', hwaddr_source, null)
        , lease6.pool_id = pool_id -- @35
