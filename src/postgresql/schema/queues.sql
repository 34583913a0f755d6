-- The tables of the shared queue of free leases, which is empty.

create table flq_pool4 ( -- @34
    id serial not null, -- @34
    start_address bigint not null, -- @34
    end_address bigint not null, -- @34
    last_returned_address bigint not null default 0, -- @34
    subnet_id bigint not null, -- @34
    created_ts timestamp with time zone not null default current_timestamp, -- @34
    modification_ts timestamp with time zone not null default current_timestamp, -- @34
    constraint flq_pool4_pkey primary key (id), -- @34
    constraint flq_pool4_range unique (start_address, end_address) -- @34
) -- @34
-- @
create index flq_pool4_by_subnet_id on flq_pool4 (subnet_id) -- @34
-- @
create table free_lease4 ( -- @34
    address bigint not null, -- @34
    modification_ts timestamp with time zone not null default current_timestamp, -- @34
    constraint free_lease4_pkey primary key (address) -- @34
) -- @34
-- @
create table flq_pool6 ( -- @34
    id serial not null, -- @34
    start_address inet not null, -- @34
    end_address inet not null, -- @34
    lease_type smallint not null, -- @34
    delegated_len smallint not null, -- @34
    last_returned_address inet not null default '::', -- @34
    subnet_id bigint not null, -- @34
    created_ts timestamp with time zone not null default current_timestamp, -- @34
    modification_ts timestamp with time zone not null default current_timestamp, -- @34
    constraint flq_pool6_pkey primary key (id), -- @34
    constraint flq_pool6_range unique (start_address, end_address), -- @34
    constraint fk_flq_pool6_type foreign key (lease_type) -- @34
        references lease6_types (lease_type) -- @34
) -- @34
-- @
create index flq_pool6_by_subnet_id on flq_pool6 (subnet_id) -- @34
-- @
create table free_lease6 ( -- @34
    address inet not null, -- @34
    bin_address bytea not null, -- @34
    modification_ts timestamp with time zone not null default current_timestamp, -- @34
    constraint free_lease6_pkey primary key (address), -- @34
    constraint free_lease6_bin_address unique (bin_address) -- @34
) -- @34
