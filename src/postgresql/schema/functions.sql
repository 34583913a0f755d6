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
-- Returns bytes as they are written in a lease file.
create function lease_file_bytes(bytes bytea) returns text language sql immutable as $$
    select regexp_replace(encode(bytes, 'hex'), '(..)(?=.)', '\1:', 'g')
$$
-- @
create function lease_file_text(value text) returns text language sql immutable as $$
    select replace(value, ',', '&#x2c')
$$
-- @
create function bytes_of_lease_file(value text) returns bytea language sql immutable as $$
    select decode(translate(value, ':', ''), 'hex')
$$
-- @
create function text_of_lease_file(value text) returns text language sql immutable as $$
    select replace(value, '&#x2c', ',')
$$
-- @
create function lease4dumpheader() returns text language sql immutable as $$
    select 'address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,'
        || 'state,user_context'
        || ',pool_id' -- @34
$$
-- @
create function lease4dumpdata() returns table (
    address inet, hwaddr varchar, client_id varchar, valid_lifetime bigint, expire bigint,
    subnet_id bigint, fqdn_fwd integer, fqdn_rev integer, hostname varchar, state bigint,
    user_context varchar
    , pool_id bigint -- @34
) language sql as $$
    select inet '0.0.0.0' + l.address, lease_file_bytes(l.hwaddr), lease_file_bytes(l.client_id),
        l.valid_lifetime, extract(epoch from l.expire)::bigint, l.subnet_id, l.fqdn_fwd::integer,
        l.fqdn_rev::integer, lease_file_text(l.hostname), l.state,
        lease_file_text(l.user_context)
        , l.pool_id -- @34
    from lease4 as l order by l.address
$$
-- @
create function lease6dumpheader() returns text language sql immutable as $$
    select 'address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,'
        || 'fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context,hwtype,hwaddr_source'
        || ',pool_id' -- @34
$$
-- @
create function lease6dumpdata() returns table (
    address varchar, duid varchar, valid_lifetime bigint, expire bigint, subnet_id bigint,
    pref_lifetime bigint, lease_type smallint, iaid bigint, prefix_len smallint, fqdn_fwd integer,
    fqdn_rev integer, hostname varchar, hwaddr varchar, state bigint, user_context varchar,
    hwtype smallint, hwaddr_source smallint
    , pool_id bigint -- @34
) language sql as $$
    select
        l.address, -- @13
        host(l.address), -- @34
        lease_file_bytes(l.duid), l.valid_lifetime, extract(epoch from l.expire)::bigint,
        l.subnet_id, l.pref_lifetime, l.lease_type,
        -- The column holds the 32 bits of an IAID as a signed number.
        l.iaid & 4294967295, l.prefix_len, l.fqdn_fwd::integer, l.fqdn_rev::integer,
        lease_file_text(l.hostname), lease_file_bytes(l.hwaddr), l.state,
        lease_file_text(l.user_context), l.hwtype, l.hwaddr_source
        , l.pool_id -- @34
    from lease6 as l order by l.address
$$
-- @
create function lease4upload(
    address varchar, hwaddr varchar, client_id varchar, valid_lifetime bigint, expire bigint,
    subnet_id bigint, fqdn_fwd integer, fqdn_rev integer, hostname varchar, state bigint,
    user_context varchar
    , pool_id bigint -- @34
) returns void language sql as $$
    insert into lease4 (address, hwaddr, client_id, valid_lifetime, expire, subnet_id, fqdn_fwd,
        pool_id, -- @34
        fqdn_rev, hostname, state, user_context)
    select $1::inet - inet '0.0.0.0', bytes_of_lease_file($2), bytes_of_lease_file($3), $4,
        to_timestamp($5), $6, $7 <> 0,
        $12, -- @34
        $8 <> 0, text_of_lease_file($9), $10, text_of_lease_file($11)
$$
-- @
create function lease6upload(
    address varchar, duid varchar, valid_lifetime bigint, expire bigint, subnet_id bigint,
    pref_lifetime bigint, lease_type integer, iaid bigint, prefix_len integer, fqdn_fwd integer,
    fqdn_rev integer, hostname varchar, hwaddr varchar, state bigint, user_context varchar,
    hwtype integer, hwaddr_source integer
    , pool_id bigint -- @34
) returns void language sql as $$
    insert into lease6 (address, duid, valid_lifetime, expire, subnet_id, pref_lifetime,
        lease_type, iaid, prefix_len, fqdn_fwd, fqdn_rev, hostname, hwaddr, state, user_context,
        pool_id, -- @34
        hwtype, hwaddr_source)
    select
        $1, -- @13
        $1::inet, -- @34
        bytes_of_lease_file($2), $3, to_timestamp($4), $5, $6, $7::smallint,
        ($8 & 4294967295)::bit(32)::integer, $9::smallint, $10 <> 0, $11 <> 0,
        text_of_lease_file($12), bytes_of_lease_file($13), $14, text_of_lease_file($15),
        $18, -- @34
        $16::smallint, $17::smallint
$$
