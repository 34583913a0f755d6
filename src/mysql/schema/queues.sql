-- The tables of the shared queue of free leases, which is empty.

create table flq_pool4 ( -- @35
    id bigint unsigned not null auto_increment, -- @35
    start_address int unsigned not null, -- @35
    end_address int unsigned not null, -- @35
    last_returned_address int unsigned default 0, -- @35
    subnet_id int unsigned not null, -- @35
    created_ts timestamp null default current_timestamp, -- @35
    modification_ts timestamp null default current_timestamp on update current_timestamp, -- @35
    primary key (id), -- @35
    unique key flq_pool4_range (start_address, end_address), -- @35
    key flq_pool4_by_subnet_id (subnet_id) -- @35
) engine = InnoDB -- @35
-- @
create table free_lease4 ( -- @35
    address int unsigned not null, -- @35
    modification_ts timestamp null default current_timestamp on update current_timestamp, -- @35
    primary key (address) -- @35
) engine = InnoDB -- @35
-- @
create table flq_pool6 ( -- @35
    id bigint unsigned not null auto_increment, -- @35
    start_address varchar(45) not null, -- @35
    end_address varchar(45) not null, -- @35
    lease_type tinyint, -- @35
    delegated_len tinyint unsigned, -- @35
    last_returned_address varchar(45) default '::', -- @35
    subnet_id int unsigned not null, -- @35
    created_ts timestamp null default current_timestamp, -- @35
    modification_ts timestamp null default current_timestamp on update current_timestamp, -- @35
    primary key (id), -- @35
    unique key flq_pool6_range (start_address, end_address), -- @35
    key flq_pool6_by_subnet_id (subnet_id), -- @35
    constraint fk_flq_pool6_type foreign key (lease_type) references lease6_types (lease_type) -- @35
) engine = InnoDB -- @35
-- @
create table free_lease6 ( -- @35
    address varchar(45) not null, -- @35
    bin_address binary(16) not null, -- @35
    modification_ts timestamp null default current_timestamp on update current_timestamp, -- @35
    primary key (address), -- @35
    unique key free_lease6_bin_address (bin_address) -- @35
) engine = InnoDB -- @35
