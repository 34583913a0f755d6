-- The tables of leases.
--
-- A line that is "-- @" ends a statement. A line that ends in "-- @" and a version, such as
-- "-- @14", belongs to the schema of this version alone.

create table lease_state (
    state int unsigned not null,
    name varchar(64) not null,
    primary key (state)
) engine = InnoDB
-- @
insert into lease_state (state, name) values
    (3, 'released'), (4, 'registered'), -- @35
    (0, 'default'), (1, 'declined'), (2, 'expired-reclaimed')
-- @
create table lease6_types (
    lease_type tinyint not null,
    name varchar(5),
    primary key (lease_type)
) engine = InnoDB
-- @
insert into lease6_types (lease_type, name) values
    (1, 'IA_TA'), -- @14
    (0, 'IA_NA'), (2, 'IA_PD')
-- @
create table lease_hwaddr_source (
    hwaddr_source int unsigned not null,
    name varchar(40),
    primary key (hwaddr_source)
) engine = InnoDB
-- @
insert into lease_hwaddr_source (hwaddr_source, name) values
    (0, 'HWADDR_SOURCE_UNKNOWN'),
    (1, 'HWADDR_SOURCE_RAW'),
    (2, 'HWADDR_SOURCE_IPV6_LINK_LOCAL'),
    (4, 'HWADDR_SOURCE_DUID'),
    (8, 'HWADDR_SOURCE_CLIENT_ADDR_RELAY_OPTION'),
    (16, 'HWADDR_SOURCE_REMOTE_ID'),
    (32, 'HWADDR_SOURCE_SUBSCRIBER_ID'),
    (64, 'HWADDR_SOURCE_DOCSIS_CMTS'),
    (128, 'HWADDR_SOURCE_DOCSIS_MODEM')
-- @
create table lease4 (
    address int unsigned not null,
    hwaddr varbinary(20),
    client_id varbinary(128), -- @14
    client_id varbinary(255), -- @35
    valid_lifetime int unsigned,
    expire timestamp null default null,
    subnet_id int unsigned,
    fqdn_fwd boolean,
    fqdn_rev boolean,
    hostname varchar(255),
    state int unsigned default 0,
    user_context text,
    relay_id varbinary(255), -- @35
    remote_id varbinary(255), -- @35
    pool_id int unsigned not null default 0, -- @35
    primary key (address),
    key lease4_by_hwaddr_subnet_id (hwaddr, subnet_id),
    key lease4_by_client_id_subnet_id (client_id, subnet_id),
    key lease4_by_subnet_id (subnet_id),
    key lease4_by_hostname (hostname),
    key lease4_by_expire_state (expire, state),
    key lease4_by_state_subnet_id (state, subnet_id), -- @35
    key lease4_by_relay_id (relay_id), -- @35
    key lease4_by_remote_id (remote_id), -- @35
    constraint fk_lease4_state foreign key (state) references lease_state (state)
) engine = InnoDB
-- @
create table lease6 (
    address varchar(39) not null, -- @14
    address binary(16) not null, -- @35
    duid varbinary(128), -- @14
    duid varbinary(130), -- @35
    valid_lifetime int unsigned,
    expire timestamp null default null,
    subnet_id int unsigned,
    pref_lifetime int unsigned,
    lease_type tinyint,
    iaid int unsigned,
    prefix_len tinyint unsigned,
    fqdn_fwd boolean,
    fqdn_rev boolean,
    hostname varchar(255),
    hwaddr varbinary(20),
    hwtype smallint unsigned,
    hwaddr_source int unsigned,
    state int unsigned default 0,
    user_context text,
    pool_id int unsigned not null default 0, -- @35
    primary key (address),
    key lease6_by_subnet_id_lease_type (subnet_id, lease_type),
    key lease6_by_duid_iaid_subnet_id (duid, iaid, subnet_id),
    key lease6_by_hostname (hostname),
    key lease6_by_expire_state (expire, state),
    key lease6_by_hwaddr (hwaddr), -- @35
    key lease6_by_state_subnet_id (state, subnet_id), -- @35
    key lease6_by_subnet_id_address (subnet_id, address), -- @35
    constraint fk_lease6_type foreign key (lease_type) references lease6_types (lease_type),
    constraint fk_lease6_hwaddr_source foreign key (hwaddr_source)
        references lease_hwaddr_source (hwaddr_source),
    constraint fk_lease6_state foreign key (state) references lease_state (state)
) engine = InnoDB
-- @
create table lease6_relay_id ( -- @35
    extended_info_id int unsigned not null auto_increment, -- @35
    relay_id varbinary(130) not null, -- @35
    lease_addr binary(16) not null, -- @35
    primary key (extended_info_id), -- @35
    key lease6_relay_id_by_id (relay_id, lease_addr), -- @35
    key lease6_relay_id_by_address (lease_addr), -- @35
    constraint fk_lease6_relay_id_addr foreign key (lease_addr) -- @35
        references lease6 (address) on delete cascade on update no action -- @35
) engine = InnoDB -- @35
-- @
create table lease6_remote_id ( -- @35
    extended_info_id int unsigned not null auto_increment, -- @35
    remote_id varbinary(255) not null, -- @35
    lease_addr binary(16) not null, -- @35
    primary key (extended_info_id), -- @35
    key lease6_remote_id_by_id (remote_id, lease_addr), -- @35
    key lease6_remote_id_by_address (lease_addr), -- @35
    constraint fk_lease6_remote_id_addr foreign key (lease_addr) -- @35
        references lease6 (address) on delete cascade on update no action -- @35
) engine = InnoDB -- @35
-- @
create table logs (
    timestamp timestamp null default current_timestamp,
    address varchar(43),
    log text not null,
    id int unsigned not null auto_increment,
    primary key (id),
    key timestamp_index (timestamp)
) engine = InnoDB
