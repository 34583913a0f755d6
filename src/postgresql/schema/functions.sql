-- Functions that Kea's servers and kea-admin call by name.

create function isjsonsupported() returns boolean language sql immutable as $$ select true $$
-- @
-- Returns which limit of a user context is reached, or an empty text.
create function checklease4limits(user_context text) returns text language sql as $$
    with limits as (
        select nullif(user_context, '')::json #> '{ISC,limits}' as list
    ), limited as (
        select number, 'class ' || (class ->> 'name') as name, leases,
            (class ->> 'address-limit')::bigint as maximum
        from limits, json_array_elements(list -> 'client-classes') with ordinality as c (class, number)
            left join lease4_stat_by_client_class on client_class = class ->> 'name'
        union all
        select null, 'subnet ' || (list #>> '{subnet,id}'), leases,
            (list #>> '{subnet,address-limit}')::bigint
        from limits left join lease4_stat
            on subnet_id = (list #>> '{subnet,id}')::bigint and state = 0
    )
    select coalesce((
        select format('%s has %s leases of at most %s', name, coalesce(leases, 0), maximum)
        from limited where maximum <= coalesce(leases, 0) order by number limit 1
    ), '')
$$
-- @
create function checklease6limits(user_context text) returns text language sql as $$
    with limits as (
        select nullif(user_context, '')::json #> '{ISC,limits}' as list
    ), kinds as (
        select * from (values
            (0, 'addresses', 'address-limit'), (2, 'prefixes', 'prefix-limit')
        ) as k (kind, noun, keyword)
    ), limited as (
        select number, kind, noun, 'class ' || (class ->> 'name') as name, leases,
            (class ->> keyword)::bigint as maximum
        from limits cross join kinds cross join
            json_array_elements(list -> 'client-classes') with ordinality as c (class, number)
            left join lease6_stat_by_client_class
            on client_class = class ->> 'name' and lease_type = kind
        union all
        select null, kind, noun, 'subnet ' || (list #>> '{subnet,id}'), leases,
            (list -> 'subnet' ->> keyword)::bigint
        from limits cross join kinds left join lease6_stat
            on subnet_id = (list #>> '{subnet,id}')::bigint and lease_type = kind and state = 0
    )
    select coalesce((
        select format('%s has %s %s of at most %s', name, coalesce(leases, 0), noun, maximum)
        from limited where maximum <= coalesce(leases, 0) order by number, kind limit 1
    ), '')
$$
-- @
-- Fields of a lease file: bytes are hexadecimal numbers with colons between them, and a text has
-- `&#x2c` for each comma. An uploaded file has `&#x26` for `&`, because `kea-admin` sends it
-- through `kea-lfc`. Kea's own functions keep that in the tables, and their dump has `&` as it is.
create function lease_file_hex(bytes bytea) returns text language sql immutable as $$
    select rtrim(regexp_replace(encode(bytes, 'hex'), '..', '\&:', 'g'), ':')
$$
-- @
create function lease_file_unhex(field text) returns bytea language sql immutable as $$
    select decode(replace(coalesce(field, ''), ':', ''), 'hex')
$$
-- @
create function lease_file_escape(plain text) returns text language sql immutable as $$
    select replace(plain, ',', '&#x2c')
$$
-- @
create function lease_file_unescape(field text) returns text language sql immutable as $$
    select replace(replace(coalesce(field, ''), '&#x2c', ','), '&#x26', '&')
$$
-- @
-- Returns the value of the column `expire`. A lease file adds an infinite lifetime, a number, to
-- the time when the client was heard; the tables have that time alone.
create function lease_file_expire(expire bigint, valid_lifetime bigint) returns timestamptz
language sql immutable as $$
    select to_timestamp(
        case when valid_lifetime = 4294967295 and expire >= valid_lifetime
            then expire - valid_lifetime
            else expire
        end
    )
$$
-- @
create function lease4dumpheader() returns text language sql immutable as $$
    select 'address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,'
        'hostname,state,user_context'
        ',pool_id' -- @34
$$
-- @
create function lease6dumpheader() returns text language sql immutable as $$
    select 'address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,'
        'prefix_len,fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context,hwtype,hwaddr_source'
        ',pool_id' -- @34
$$
-- @
create function lease4dumpdata() returns table (
    address inet, hwaddr varchar, client_id varchar, valid_lifetime bigint, expire bigint,
    subnet_id bigint, fqdn_fwd integer, fqdn_rev integer, hostname varchar, state bigint,
    user_context varchar
    , pool_id bigint -- @34
) language sql stable as $$
    select
        inet '0.0.0.0' + lease.address,
        lease_file_hex(lease.hwaddr),
        lease_file_hex(lease.client_id),
        lease.valid_lifetime,
        extract(epoch from lease.expire)::bigint,
        lease.subnet_id,
        lease.fqdn_fwd::integer,
        lease.fqdn_rev::integer,
        lease_file_escape(lease.hostname),
        lease.state,
        lease_file_escape(lease.user_context)
        , lease.pool_id -- @34
    from lease4 as lease
    order by lease.address
$$
-- @
-- An IAID is stored as a signed number; in a lease file it is unsigned.
create function lease6dumpdata() returns table (
    address varchar, duid varchar, valid_lifetime bigint, expire bigint, subnet_id bigint,
    pref_lifetime bigint, lease_type smallint, iaid bigint, prefix_len smallint, fqdn_fwd integer,
    fqdn_rev integer, hostname varchar, hwaddr varchar, state bigint, user_context varchar,
    hwtype smallint, hwaddr_source smallint
    , pool_id bigint -- @34
) language sql stable as $$
    select
        lease.address, -- @13
        host(lease.address), -- @34
        lease_file_hex(lease.duid),
        lease.valid_lifetime,
        extract(epoch from lease.expire)::bigint,
        lease.subnet_id,
        lease.pref_lifetime,
        lease.lease_type,
        lease.iaid & 4294967295,
        lease.prefix_len,
        lease.fqdn_fwd::integer,
        lease.fqdn_rev::integer,
        lease_file_escape(lease.hostname),
        lease_file_hex(lease.hwaddr),
        lease.state,
        lease_file_escape(lease.user_context),
        lease.hwtype,
        lease.hwaddr_source
        , lease.pool_id -- @34
    from lease6 as lease
    order by lease.address
$$
-- @
create function lease4upload(
    address varchar, hwaddr varchar, client_id varchar, valid_lifetime bigint, expire bigint,
    subnet_id bigint, fqdn_fwd integer, fqdn_rev integer, hostname varchar, state bigint,
    user_context varchar
    , pool_id bigint -- @34
) returns void language sql as $$
    insert into lease4 (
        pool_id, -- @34
        address, hwaddr, client_id, valid_lifetime, expire, subnet_id, fqdn_fwd, fqdn_rev,
        hostname, state, user_context
    ) values (
        pool_id, -- @34
        address::inet - inet '0.0.0.0',
        lease_file_unhex(hwaddr),
        lease_file_unhex(client_id),
        valid_lifetime,
        lease_file_expire(expire, valid_lifetime),
        subnet_id,
        fqdn_fwd::boolean,
        fqdn_rev::boolean,
        lease_file_unescape(hostname),
        state,
        lease_file_unescape(user_context)
    )
$$
-- @
-- Kea's servers cannot read a lease whose hwtype or hwaddr_source is NULL.
create function lease6upload(
    address varchar, duid varchar, valid_lifetime bigint, expire bigint, subnet_id bigint,
    pref_lifetime bigint, lease_type integer, iaid bigint, prefix_len integer, fqdn_fwd integer,
    fqdn_rev integer, hostname varchar, hwaddr varchar, state bigint, user_context varchar,
    hwtype integer, hwaddr_source integer
    , pool_id bigint -- @34
) returns void language sql as $$
    insert into lease6 (
        pool_id, -- @34
        address, duid, valid_lifetime, expire, subnet_id, pref_lifetime, lease_type, iaid,
        prefix_len, fqdn_fwd, fqdn_rev, hostname, hwaddr, state, user_context, hwtype,
        hwaddr_source
    ) values (
        pool_id, -- @34
        host(address::inet), -- @13
        address::inet, -- @34
        lease_file_unhex(duid),
        valid_lifetime,
        lease_file_expire(expire, valid_lifetime),
        subnet_id,
        pref_lifetime,
        lease_type,
        case when iaid between 2147483648 and 4294967295 then iaid - 4294967296 else iaid end,
        prefix_len,
        fqdn_fwd::boolean,
        fqdn_rev::boolean,
        lease_file_unescape(hostname),
        lease_file_unhex(hwaddr),
        state,
        lease_file_unescape(user_context),
        coalesce(hwtype, 0),
        coalesce(hwaddr_source, 0)
    )
$$
