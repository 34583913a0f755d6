-- The tables of leases.
--
-- A line that is "-- @" ends a statement. A line that ends in "-- @" and a version, such as
-- "-- @13", belongs to the schema of this version alone.

create table lease_state (
    state bigint not null,
    name varchar(64) not null,
    constraint lease_state_pkey primary key (state)
)
-- @
insert into lease_state (state, name) values
    (3, 'released'), (4, 'registered'), -- @34
    (0, 'default'), (1, 'declined'), (2, 'expired-reclaimed')
-- @
create table lease6_types (
    lease_type smallint not null,
    name varchar(5),
    constraint lease6_types_pkey primary key (lease_type)
)
-- @
insert into lease6_types (lease_type, name) values
    (1, 'IA_TA'), -- @13
    (0, 'IA_NA'), (2, 'IA_PD')
-- @
create table lease_hwaddr_source (
    hwaddr_source integer not null,
    name varchar(40) default null,
    constraint lease_hwaddr_source_pkey primary key (hwaddr_source)
)
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
    address bigint not null,
    hwaddr bytea,
    client_id bytea,
    valid_lifetime bigint,
    expire timestamp with time zone,
    subnet_id bigint,
    fqdn_fwd boolean,
    fqdn_rev boolean,
    hostname varchar(255),
    state bigint default 0,
    user_context text,
    relay_id bytea, -- @34
    remote_id bytea, -- @34
    pool_id bigint not null default 0, -- @34
    constraint lease4_pkey primary key (address),
    constraint fk_lease4_state foreign key (state) references lease_state (state)
)
-- @
create index lease4_by_client_id_subnet_id on lease4 (client_id, subnet_id)
-- @
create index lease4_by_hwaddr_subnet_id on lease4 (hwaddr, subnet_id)
-- @
create index lease4_by_hostname on lease4 (lower(hostname)) where hostname is not null
-- @
create index lease4_by_state_expire on lease4 (state, expire)
-- @
create index lease4_by_subnet_id on lease4 (subnet_id)
-- @
create index lease4_by_state_subnet_id on lease4 (state, subnet_id) -- @34
-- @
create index lease4_by_relay_id on lease4 (relay_id) -- @34
-- @
create index lease4_by_remote_id on lease4 (remote_id) -- @34
-- @
create table lease6 (
    address varchar(39) not null, -- @13
    address inet not null, -- @34
    duid bytea,
    valid_lifetime bigint,
    expire timestamp with time zone,
    subnet_id bigint,
    pref_lifetime bigint,
    lease_type smallint,
    iaid integer,
    prefix_len smallint,
    fqdn_fwd boolean,
    fqdn_rev boolean,
    hostname varchar(255),
    state bigint default 0,
    hwaddr bytea,
    hwtype smallint,
    hwaddr_source smallint,
    user_context text,
    pool_id bigint not null default 0, -- @34
    constraint lease6_pkey primary key (address),
    constraint fk_lease6_state foreign key (state) references lease_state (state),
    constraint fk_lease6_type foreign key (lease_type) references lease6_types (lease_type)
)
-- @
create index lease6_by_duid_iaid_subnet_id on lease6 (duid, iaid, subnet_id)
-- @
create index lease6_by_hostname on lease6 (lower(hostname)) where hostname is not null
-- @
create index lease6_by_state_expire on lease6 (state, expire)
-- @
create index lease6_by_subnet_id_lease_type on lease6 (subnet_id, lease_type)
-- @
create index lease6_by_hwaddr on lease6 (hwaddr) -- @34
-- @
create index lease6_by_state_subnet_id on lease6 (state, subnet_id) -- @34
-- @
create index lease6_by_subnet_id_address on lease6 (subnet_id, address) -- @34
-- @
create table lease6_relay_id ( -- @34
    extended_info_id serial not null, -- @34
    relay_id bytea not null, -- @34
    lease_addr inet not null, -- @34
    constraint lease6_relay_id_pkey primary key (extended_info_id), -- @34
    constraint fk_lease6_relay_id_addr foreign key (lease_addr) -- @34
        references lease6 (address) on delete cascade -- @34
) -- @34
-- @
create index lease6_relay_id_by_id on lease6_relay_id (relay_id, lease_addr) -- @34
-- @
create index lease6_relay_id_by_address on lease6_relay_id (lease_addr) -- @34
-- @
create table lease6_remote_id ( -- @34
    extended_info_id serial not null, -- @34
    remote_id bytea not null, -- @34
    lease_addr inet not null, -- @34
    constraint lease6_remote_id_pkey primary key (extended_info_id), -- @34
    constraint fk_lease6_remote_id_addr foreign key (lease_addr) -- @34
        references lease6 (address) on delete cascade -- @34
) -- @34
-- @
create index lease6_remote_id_by_id on lease6_remote_id (remote_id, lease_addr) -- @34
-- @
create index lease6_remote_id_by_address on lease6_remote_id (lease_addr) -- @34
-- @
create table logs (
    "timestamp" timestamp with time zone default current_timestamp,
    address varchar(43),
    log text not null
)
-- @
create index timestamp_id on logs ("timestamp")
-- @
create index address_id on logs (address)
