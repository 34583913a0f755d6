-- The statistics, which triggers keep. They need JSON_TABLE: MariaDB 10.6, MySQL 8.0.
--
-- The rows that the change of a lease locks are locked in the order of their keys, so that two
-- changes of one lease each wait for each other and do not deadlock. Subnets are counted in the
-- triggers themselves: the call of a procedure takes as long as the count.

create table lease4_stat (
    subnet_id int unsigned not null,
    state int unsigned not null,
    leases bigint,
    primary key (subnet_id, state)
) engine = InnoDB
-- @
create table lease6_stat (
    subnet_id int unsigned not null,
    lease_type int unsigned not null,
    state int unsigned not null,
    leases bigint,
    primary key (subnet_id, lease_type, state)
) engine = InnoDB
-- @
create table lease4_pool_stat ( -- @35
    subnet_id int unsigned not null, -- @35
    pool_id int unsigned not null, -- @35
    state int unsigned not null, -- @35
    leases bigint, -- @35
    primary key (subnet_id, pool_id, state) -- @35
) engine = InnoDB -- @35
-- @
create table lease6_pool_stat ( -- @35
    subnet_id int unsigned not null, -- @35
    pool_id int unsigned not null, -- @35
    lease_type int unsigned not null, -- @35
    state int unsigned not null, -- @35
    leases bigint, -- @35
    primary key (subnet_id, pool_id, lease_type, state) -- @35
) engine = InnoDB -- @35
-- @
create table lease4_stat_by_client_class (
    client_class varchar(128) character set utf8mb4 collate utf8mb4_bin not null,
    leases bigint unsigned not null,
    primary key (client_class)
) engine = InnoDB
-- @
create table lease6_stat_by_client_class (
    client_class varchar(128) character set utf8mb4 collate utf8mb4_bin not null,
    lease_type tinyint not null,
    leases bigint unsigned not null,
    primary key (client_class, lease_type),
    constraint fk_lease6_stat_by_client_class_lease_type foreign key (lease_type)
        references lease6_types (lease_type)
) engine = InnoDB
-- @
-- Counts one lease more, or one less. -- @35
create procedure lease4_pool_count( -- @35
    in subnet int unsigned, in pool int unsigned, in in_state int unsigned, in more boolean -- @35
) -- @35
modifies sql data -- @35
if more and in_state in (0, 1) then -- @35
    insert into lease4_pool_stat (subnet_id, pool_id, state, leases) -- @35
        values (subnet, pool, in_state, 1) on duplicate key update leases = leases + 1; -- @35
elseif in_state in (0, 1) then -- @35
    update lease4_pool_stat set leases = leases - 1 -- @35
        where subnet_id = subnet and pool_id = pool and state = in_state and leases > 0; -- @35
end if -- @35
-- @
create procedure lease6_pool_count( -- @35
    in subnet int unsigned, in pool int unsigned, in of_type int unsigned, -- @35
    in in_state int unsigned, in more boolean -- @35
) -- @35
modifies sql data -- @35
if more and in_state in (0, 1) then -- @35
    insert into lease6_pool_stat (subnet_id, pool_id, lease_type, state, leases) -- @35
        values (subnet, pool, of_type, in_state, 1) -- @35
        on duplicate key update leases = leases + 1; -- @35
elseif in_state in (0, 1) then -- @35
    update lease6_pool_stat set leases = leases - 1 -- @35
        where subnet_id = subnet and pool_id = pool and lease_type = of_type -- @35
            and state = in_state and leases > 0; -- @35
end if -- @35
-- @
-- Counts a lease in the client classes of its user context, if it is in use.
create procedure lease4_count_classes(
    in in_state int unsigned, in user_context text, in more boolean
)
modifies sql data
if in_state = 0 and user_context <> '' then
    insert into lease4_stat_by_client_class (client_class, leases)
        select class, if(more, n, 0) from (
            select distinct convert(class using utf8mb4) collate utf8mb4_bin as class, 1 as n
            from json_table(user_context, '$.ISC."client-classes"[*]' columns (
                class varchar(128) path '$'
            )) as classes
            where class is not null
        ) as counts
        order by class
        on duplicate key update leases = if(more, leases + n, leases - least(leases, n));
end if
-- @
create procedure lease6_count_classes(
    in of_type tinyint, in in_state int unsigned, in user_context text, in more boolean
)
modifies sql data
if in_state = 0 and user_context <> '' then
    insert into lease6_stat_by_client_class (client_class, lease_type, leases)
        select class, of_type, if(more, n, 0) from (
            select distinct convert(class using utf8mb4) collate utf8mb4_bin as class, 1 as n
            from json_table(user_context, '$.ISC."client-classes"[*]' columns (
                class varchar(128) path '$'
            )) as classes
            where class is not null
        ) as counts
        order by class
        on duplicate key update leases = if(more, leases + n, leases - least(leases, n));
end if
-- @
create trigger lease4_AINS after insert on lease4 for each row
begin
    if new.state in (0, 1) then
        insert into lease4_stat (subnet_id, state, leases) values (new.subnet_id, new.state, 1)
            on duplicate key update leases = leases + 1;
    end if;
    call lease4_pool_count(new.subnet_id, new.pool_id, new.state, true); -- @35
    if new.user_context <> '' then
        call lease4_count_classes(new.state, new.user_context, true);
    end if;
end
-- @
create trigger lease4_ADEL after delete on lease4 for each row
begin
    if old.state in (0, 1) then
        update lease4_stat set leases = leases - 1
            where subnet_id = old.subnet_id and state = old.state
                and leases > 0;
    end if;
    call lease4_pool_count(old.subnet_id, old.pool_id, old.state, false); -- @35
    if old.user_context <> '' then
        call lease4_count_classes(old.state, old.user_context, false);
    end if;
end
-- @
create trigger lease4_AUPD after update on lease4 for each row
begin
    declare is_old_first boolean;
    if not (old.subnet_id <=> new.subnet_id and old.state <=> new.state) then
        set is_old_first = ifnull(
            (old.subnet_id, old.state) < (new.subnet_id, new.state), true);
        if is_old_first and old.state in (0, 1) then
            update lease4_stat set leases = leases - 1
                where subnet_id = old.subnet_id and state = old.state
                    and leases > 0;
        end if;
        if new.state in (0, 1) then
            insert into lease4_stat (subnet_id, state, leases)
                values (new.subnet_id, new.state, 1) on duplicate key update leases = leases + 1;
        end if;
        if not is_old_first and old.state in (0, 1) then
            update lease4_stat set leases = leases - 1
                where subnet_id = old.subnet_id and state = old.state
                    and leases > 0;
        end if;
    end if;
    if not (old.subnet_id <=> new.subnet_id and old.pool_id = new.pool_id -- @35
        and old.state <=> new.state) -- @35
    then -- @35
        if (old.subnet_id, old.pool_id, old.state) -- @35
            < (new.subnet_id, new.pool_id, new.state) -- @35
        then -- @35
            call lease4_pool_count(old.subnet_id, old.pool_id, old.state, false); -- @35
            call lease4_pool_count(new.subnet_id, new.pool_id, new.state, true); -- @35
        else -- @35
            call lease4_pool_count(new.subnet_id, new.pool_id, new.state, true); -- @35
            call lease4_pool_count(old.subnet_id, old.pool_id, old.state, false); -- @35
        end if; -- @35
    end if; -- @35
    if not (old.state <=> new.state and old.user_context <=> new.user_context) then
        call lease4_count_classes(old.state, old.user_context, false);
        call lease4_count_classes(new.state, new.user_context, true);
    end if;
end
-- @
create trigger lease6_AINS after insert on lease6 for each row
begin
    if new.state in (0, 1) then -- @14
    if new.state in (0, 1, 4) then -- @35
        insert into lease6_stat (subnet_id, lease_type, state, leases)
            values (new.subnet_id, new.lease_type, new.state, 1)
            on duplicate key update leases = leases + 1;
    end if;
    call lease6_pool_count(new.subnet_id, new.pool_id, new.lease_type, new.state, true); -- @35
    if new.user_context <> '' then
        call lease6_count_classes(new.lease_type, new.state, new.user_context, true);
    end if;
end
-- @
create trigger lease6_ADEL after delete on lease6 for each row
begin
    if old.state in (0, 1) then -- @14
    if old.state in (0, 1, 4) then -- @35
        update lease6_stat set leases = leases - 1
            where subnet_id = old.subnet_id and lease_type = old.lease_type and state = old.state
                and leases > 0;
    end if;
    call lease6_pool_count(old.subnet_id, old.pool_id, old.lease_type, old.state, false); -- @35
    if old.user_context <> '' then
        call lease6_count_classes(old.lease_type, old.state, old.user_context, false);
    end if;
end
-- @
create trigger lease6_AUPD after update on lease6 for each row
begin
    declare is_old_first boolean;
    declare same_type_and_state boolean default
        old.lease_type <=> new.lease_type and old.state <=> new.state;
    if not (old.subnet_id <=> new.subnet_id and same_type_and_state) then
        set is_old_first = ifnull(
            (old.subnet_id, old.lease_type, old.state)
            < (new.subnet_id, new.lease_type, new.state), true);
        if is_old_first and old.state in (0, 1) then -- @14
        if is_old_first and old.state in (0, 1, 4) then -- @35
            update lease6_stat set leases = leases - 1
                where subnet_id = old.subnet_id and lease_type = old.lease_type and state = old.state
                    and leases > 0;
        end if;
        if new.state in (0, 1) then -- @14
        if new.state in (0, 1, 4) then -- @35
            insert into lease6_stat (subnet_id, lease_type, state, leases)
                values (new.subnet_id, new.lease_type, new.state, 1)
                on duplicate key update leases = leases + 1;
        end if;
        if not is_old_first and old.state in (0, 1) then -- @14
        if not is_old_first and old.state in (0, 1, 4) then -- @35
            update lease6_stat set leases = leases - 1
                where subnet_id = old.subnet_id and lease_type = old.lease_type and state = old.state
                    and leases > 0;
        end if;
    end if;
    if not (old.subnet_id <=> new.subnet_id and old.pool_id = new.pool_id -- @35
        and same_type_and_state) -- @35
    then -- @35
        if (old.subnet_id, old.pool_id, old.lease_type, old.state) -- @35
            < (new.subnet_id, new.pool_id, new.lease_type, new.state) -- @35
        then -- @35
            call lease6_pool_count( -- @35
                old.subnet_id, old.pool_id, old.lease_type, old.state, false); -- @35
            call lease6_pool_count( -- @35
                new.subnet_id, new.pool_id, new.lease_type, new.state, true); -- @35
        else -- @35
            call lease6_pool_count( -- @35
                new.subnet_id, new.pool_id, new.lease_type, new.state, true); -- @35
            call lease6_pool_count( -- @35
                old.subnet_id, old.pool_id, old.lease_type, old.state, false); -- @35
        end if; -- @35
    end if; -- @35
    if not (same_type_and_state and old.user_context <=> new.user_context) then
        call lease6_count_classes(old.lease_type, old.state, old.user_context, false);
        call lease6_count_classes(new.lease_type, new.state, new.user_context, true);
    end if;
end
