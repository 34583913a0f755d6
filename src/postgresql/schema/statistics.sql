-- The statistics, which triggers keep.
--
-- The triggers run once for each statement: a statement that changes several leases changes the
-- row of a subnet once. Each statement locks the rows of a table in the order of their keys, so that
-- transactions with one statement wait for each other and do not deadlock.

create table lease4_stat (
    subnet_id bigint not null,
    state bigint not null,
    leases bigint,
    constraint lease4_stat_pkey primary key (subnet_id, state)
)
-- @
create table lease6_stat (
    subnet_id bigint not null,
    lease_type smallint not null,
    state bigint not null,
    leases bigint,
    constraint lease6_stat_pkey primary key (subnet_id, lease_type, state)
)
-- @
create table lease4_pool_stat ( -- @34
    subnet_id bigint not null, -- @34
    pool_id bigint not null, -- @34
    state bigint not null, -- @34
    leases bigint, -- @34
    constraint lease4_pool_stat_pkey primary key (subnet_id, pool_id, state) -- @34
) -- @34
-- @
create table lease6_pool_stat ( -- @34
    subnet_id bigint not null, -- @34
    pool_id bigint not null, -- @34
    lease_type smallint not null, -- @34
    state bigint not null, -- @34
    leases bigint, -- @34
    constraint lease6_pool_stat_pkey primary key (subnet_id, pool_id, lease_type, state) -- @34
) -- @34
-- @
create table lease4_stat_by_client_class (
    client_class varchar(128) not null,
    leases bigint not null,
    constraint lease4_stat_by_client_class_pkey primary key (client_class)
)
-- @
create table lease6_stat_by_client_class (
    client_class varchar(128) not null,
    lease_type smallint not null,
    leases bigint not null,
    constraint lease6_stat_by_client_class_pkey primary key (client_class, lease_type),
    constraint fk_lease6_stat_by_client_class_lease_type foreign key (lease_type)
        references lease6_types (lease_type)
)
-- @
-- The names of the client classes in a user context, each once.
create function client_classes_of(user_context text) returns setof text
language sql immutable as $$
    select distinct element #>> '{}'
    from (select user_context::json #> '{ISC,client-classes}' as list) as context,
        json_array_elements(case json_typeof(list) when 'array' then list else '[]' end) as element
    where json_typeof(element) = 'string'
$$
-- @
create function lease4_count(subnet bigint, in_state bigint, change bigint) returns void
language plpgsql as $$
begin
    update lease4_stat set leases = greatest(leases + change, 0)
        where subnet_id = subnet and state = in_state;
    if not found and change > 0 then
        insert into lease4_stat as stat (subnet_id, state, leases) values (subnet, in_state, change)
            on conflict (subnet_id, state) do update set leases = stat.leases + change;
    end if;
end
$$
-- @
create function lease6_count(subnet bigint, of_type smallint, in_state bigint, change bigint)
returns void language plpgsql as $$
begin
    update lease6_stat set leases = greatest(leases + change, 0)
        where subnet_id = subnet and lease_type = of_type and state = in_state;
    if not found and change > 0 then
        insert into lease6_stat as stat (subnet_id, lease_type, state, leases)
            values (subnet, of_type, in_state, change)
            on conflict (subnet_id, lease_type, state) do update set leases = stat.leases + change;
    end if;
end
$$
-- @
create function lease4_pool_count(subnet bigint, pool bigint, in_state bigint, change bigint) -- @34
returns void language plpgsql as $$ -- @34
begin -- @34
    update lease4_pool_stat set leases = greatest(leases + change, 0) -- @34
        where subnet_id = subnet and pool_id = pool and state = in_state; -- @34
    if not found and change > 0 then -- @34
        insert into lease4_pool_stat as stat (subnet_id, pool_id, state, leases) -- @34
            values (subnet, pool, in_state, change) -- @34
            on conflict (subnet_id, pool_id, state) -- @34
            do update set leases = stat.leases + change; -- @34
    end if; -- @34
end -- @34
$$ -- @34
-- @
create function lease6_pool_count( -- @34
    subnet bigint, pool bigint, of_type smallint, in_state bigint, change bigint -- @34
) returns void language plpgsql as $$ -- @34
begin -- @34
    update lease6_pool_stat set leases = greatest(leases + change, 0) -- @34
        where subnet_id = subnet and pool_id = pool and lease_type = of_type -- @34
            and state = in_state; -- @34
    if not found and change > 0 then -- @34
        insert into lease6_pool_stat as stat (subnet_id, pool_id, lease_type, state, leases) -- @34
            values (subnet, pool, of_type, in_state, change) -- @34
            on conflict (subnet_id, pool_id, lease_type, state) -- @34
            do update set leases = stat.leases + change; -- @34
    end if; -- @34
end -- @34
$$ -- @34
-- @
create function lease4_class_count(class text, change bigint) returns void
language plpgsql as $$
begin
    update lease4_stat_by_client_class set leases = greatest(leases + change, 0)
        where client_class = class;
    if not found and change > 0 then
        insert into lease4_stat_by_client_class as stat (client_class, leases)
            values (class, change)
            on conflict (client_class) do update set leases = stat.leases + change;
    end if;
end
$$
-- @
create function lease6_class_count(class text, of_type smallint, change bigint) returns void
language plpgsql as $$
begin
    update lease6_stat_by_client_class set leases = greatest(leases + change, 0)
        where client_class = class and lease_type = of_type;
    if not found and change > 0 then
        insert into lease6_stat_by_client_class as stat (client_class, lease_type, leases)
            values (class, of_type, change)
            on conflict (client_class, lease_type) do update set leases = stat.leases + change;
    end if;
end
$$
-- @
create function lease4_inserted() returns trigger language plpgsql as $$
begin
    perform lease4_count(subnet_id, state, n) from (
        select subnet_id, state, count(*) as n from added where state in (0, 1)
        group by subnet_id, state order by subnet_id, state
    ) as counts;
    perform lease4_pool_count(subnet_id, pool_id, state, n) from ( -- @34
        select subnet_id, pool_id, state, count(*) as n from added where state in (0, 1) -- @34
        group by subnet_id, pool_id, state order by subnet_id, pool_id, state -- @34
    ) as counts; -- @34
    perform lease4_class_count(class, n) from (
        select class, count(*) as n from added, client_classes_of(user_context) as class
        where state = 0 and user_context <> '' group by class order by class
    ) as counts;
    return null;
end
$$
-- @
create function lease4_deleted() returns trigger language plpgsql as $$
begin
    perform lease4_count(subnet_id, state, -n) from (
        select subnet_id, state, count(*) as n from removed where state in (0, 1)
        group by subnet_id, state order by subnet_id, state
    ) as counts;
    perform lease4_pool_count(subnet_id, pool_id, state, -n) from ( -- @34
        select subnet_id, pool_id, state, count(*) as n from removed where state in (0, 1) -- @34
        group by subnet_id, pool_id, state order by subnet_id, pool_id, state -- @34
    ) as counts; -- @34
    perform lease4_class_count(class, -n) from (
        select class, count(*) as n from removed, client_classes_of(user_context) as class
        where state = 0 and user_context <> '' group by class order by class
    ) as counts;
    return null;
end
$$
-- @
create function lease4_updated() returns trigger language plpgsql as $$
begin
    perform lease4_count(subnet_id, state, n) from (
        select subnet_id, state, sum(n)::bigint as n from (
            select subnet_id, state, 1 as n from added where state in (0, 1)
            union all
            select subnet_id, state, -1 from removed where state in (0, 1)
        ) as changes
        group by subnet_id, state having sum(n) <> 0 order by subnet_id, state
    ) as counts;
    perform lease4_pool_count(subnet_id, pool_id, state, n) from ( -- @34
        select subnet_id, pool_id, state, sum(n)::bigint as n from ( -- @34
            select subnet_id, pool_id, state, 1 as n from added where state in (0, 1) -- @34
            union all -- @34
            select subnet_id, pool_id, state, -1 from removed where state in (0, 1) -- @34
        ) as changes -- @34
        group by subnet_id, pool_id, state having sum(n) <> 0 -- @34
        order by subnet_id, pool_id, state -- @34
    ) as counts; -- @34
    perform lease4_class_count(class, n) from (
        select class, sum(n)::bigint as n from (
            select user_context, sum(n) as n from (
                select user_context, state, 1 as n from added
                union all
                select user_context, state, -1 from removed
            ) as changes
            where state = 0 and user_context <> ''
            group by user_context having sum(n) <> 0
        ) as contexts, client_classes_of(user_context) as class
        group by class having sum(n) <> 0 order by class
    ) as counts;
    return null;
end
$$
-- @
create function lease6_inserted() returns trigger language plpgsql as $$
begin
    perform lease6_count(subnet_id, lease_type, state, n) from (
        select subnet_id, lease_type, state, count(*) as n from added
        where state in (0, 1) -- @13
        where state in (0, 1, 4) -- @34
        group by subnet_id, lease_type, state order by subnet_id, lease_type, state
    ) as counts;
    perform lease6_pool_count(subnet_id, pool_id, lease_type, state, n) from ( -- @34
        select subnet_id, pool_id, lease_type, state, count(*) as n from added -- @34
        where state in (0, 1) group by subnet_id, pool_id, lease_type, state -- @34
        order by subnet_id, pool_id, lease_type, state -- @34
    ) as counts; -- @34
    perform lease6_class_count(class, lease_type, n) from (
        select class, lease_type, count(*) as n from added, client_classes_of(user_context) as class
        where state = 0 and user_context <> '' group by class, lease_type order by class, lease_type
    ) as counts;
    return null;
end
$$
-- @
create function lease6_deleted() returns trigger language plpgsql as $$
begin
    perform lease6_count(subnet_id, lease_type, state, -n) from (
        select subnet_id, lease_type, state, count(*) as n from removed
        where state in (0, 1) -- @13
        where state in (0, 1, 4) -- @34
        group by subnet_id, lease_type, state order by subnet_id, lease_type, state
    ) as counts;
    perform lease6_pool_count(subnet_id, pool_id, lease_type, state, -n) from ( -- @34
        select subnet_id, pool_id, lease_type, state, count(*) as n from removed -- @34
        where state in (0, 1) group by subnet_id, pool_id, lease_type, state -- @34
        order by subnet_id, pool_id, lease_type, state -- @34
    ) as counts; -- @34
    perform lease6_class_count(class, lease_type, -n) from (
        select class, lease_type, count(*) as n
        from removed, client_classes_of(user_context) as class
        where state = 0 and user_context <> '' group by class, lease_type order by class, lease_type
    ) as counts;
    return null;
end
$$
-- @
create function lease6_updated() returns trigger language plpgsql as $$
begin
    perform lease6_count(subnet_id, lease_type, state, n) from (
        select subnet_id, lease_type, state, sum(n)::bigint as n from (
            select subnet_id, lease_type, state, 1 as n from added
            union all
            select subnet_id, lease_type, state, -1 from removed
        ) as changes
        where state in (0, 1) -- @13
        where state in (0, 1, 4) -- @34
        group by subnet_id, lease_type, state having sum(n) <> 0
        order by subnet_id, lease_type, state
    ) as counts;
    perform lease6_pool_count(subnet_id, pool_id, lease_type, state, n) from ( -- @34
        select subnet_id, pool_id, lease_type, state, sum(n)::bigint as n from ( -- @34
            select subnet_id, pool_id, lease_type, state, 1 as n from added -- @34
            union all -- @34
            select subnet_id, pool_id, lease_type, state, -1 from removed -- @34
        ) as changes -- @34
        where state in (0, 1) -- @34
        group by subnet_id, pool_id, lease_type, state having sum(n) <> 0 -- @34
        order by subnet_id, pool_id, lease_type, state -- @34
    ) as counts; -- @34
    perform lease6_class_count(class, lease_type, n) from (
        select class, lease_type, sum(n)::bigint as n from (
            select user_context, lease_type, sum(n) as n from (
                select user_context, lease_type, state, 1 as n from added
                union all
                select user_context, lease_type, state, -1 from removed
            ) as changes
            where state = 0 and user_context <> ''
            group by user_context, lease_type having sum(n) <> 0
        ) as contexts, client_classes_of(user_context) as class
        group by class, lease_type having sum(n) <> 0 order by class, lease_type
    ) as counts;
    return null;
end
$$
-- @
create trigger lease4_ains after insert on lease4
referencing new table as added for each statement execute function lease4_inserted()
-- @
create trigger lease4_adel after delete on lease4
referencing old table as removed for each statement execute function lease4_deleted()
-- @
create trigger lease4_aupd after update on lease4
referencing old table as removed new table as added
for each statement execute function lease4_updated()
-- @
create trigger lease6_ains after insert on lease6
referencing new table as added for each statement execute function lease6_inserted()
-- @
create trigger lease6_adel after delete on lease6
referencing old table as removed for each statement execute function lease6_deleted()
-- @
create trigger lease6_aupd after update on lease6
referencing old table as removed new table as added
for each statement execute function lease6_updated()
