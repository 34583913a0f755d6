-- The tables of hosts. Those of Kea's configuration backend are not made: columns of options that
-- refer to them have no foreign key.

create table host_identifier_type (
    type smallint not null,
    name varchar(32) default null,
    constraint host_identifier_type_pkey primary key (type)
)
-- @
insert into host_identifier_type (type, name) values
    (0, 'hw-address'), (1, 'duid'), (2, 'circuit-id'), (3, 'client-id'), (4, 'flex-id')
-- @
create table dhcp_option_scope (
    scope_id smallint not null,
    scope_name varchar(32) default null,
    constraint dhcp_option_scope_pkey primary key (scope_id)
)
-- @
insert into dhcp_option_scope (scope_id, scope_name) values
    (0, 'global'), (1, 'subnet'), (2, 'client-class'), (3, 'host'), (4, 'shared-network'),
    (5, 'pool'), (6, 'pd-pool')
-- @
create table hosts (
    host_id serial not null,
    dhcp_identifier bytea not null,
    dhcp_identifier_type smallint not null,
    dhcp4_subnet_id bigint,
    dhcp6_subnet_id bigint,
    ipv4_address bigint,
    hostname varchar(255) default null,
    dhcp4_client_classes varchar(255) default null,
    dhcp6_client_classes varchar(255) default null,
    dhcp4_next_server bigint,
    dhcp4_server_hostname varchar(64) default null,
    dhcp4_boot_file_name varchar(128) default null,
    user_context text,
    auth_key varchar(32) default null,
    constraint hosts_pkey primary key (host_id),
    constraint fk_host_identifier_type foreign key (dhcp_identifier_type)
        references host_identifier_type (type) on delete cascade
)
-- @
create unique index key_dhcp4_identifier_subnet_id
on hosts (dhcp_identifier, dhcp_identifier_type, dhcp4_subnet_id) where dhcp4_subnet_id is not null
-- @
create unique index key_dhcp6_identifier_subnet_id
on hosts (dhcp_identifier, dhcp_identifier_type, dhcp6_subnet_id) where dhcp6_subnet_id is not null
-- @
create index key_dhcp_identifier on hosts (dhcp_identifier, dhcp_identifier_type)
-- @
create index key_dhcp4_ipv4_address_subnet_id on hosts (ipv4_address, dhcp4_subnet_id)
-- @
create index fk_host_identifier_type on hosts (dhcp_identifier_type)
-- @
create index hosts_by_hostname on hosts (lower(hostname)) where hostname is not null
-- @
create table ipv6_reservations (
    reservation_id serial not null,
    address varchar(39) not null, -- @13
    address inet not null, -- @34
    prefix_len smallint not null default 128,
    type smallint not null default 0,
    dhcp6_iaid integer,
    host_id integer not null,
    excluded_prefix inet, -- @34
    excluded_prefix_len smallint not null default 0, -- @34
    constraint ipv6_reservations_pkey primary key (reservation_id),
    constraint fk_ipv6_reservations_host foreign key (host_id)
        references hosts (host_id) on delete cascade
)
-- @
create index fk_ipv6_reservations_host_idx on ipv6_reservations (host_id)
-- @
create index key_dhcp6_address_prefix_len on ipv6_reservations (address, prefix_len)
-- @
create table dhcp4_options (
    option_id serial not null,
    code smallint not null,
    value bytea,
    formatted_value text,
    space varchar(128) default null,
    persistent boolean not null default false,
    dhcp_client_class varchar(128) default null,
    dhcp4_subnet_id bigint,
    host_id integer,
    scope_id smallint not null,
    user_context text,
    shared_network_name varchar(128) default null,
    pool_id bigint,
    modification_ts timestamp with time zone not null default current_timestamp,
    cancelled boolean not null default false, -- @34
    client_classes text not null, -- @34
    constraint dhcp4_options_pkey primary key (option_id),
    constraint fk_dhcp4_option_scode foreign key (scope_id)
        references dhcp_option_scope (scope_id) on delete cascade,
    constraint fk_options_host1 foreign key (host_id) references hosts (host_id) on delete cascade
)
-- @
create index fk_dhcp4_options_host1_idx on dhcp4_options (host_id)
-- @
create index fk_dhcp4_options_scope_idx on dhcp4_options (scope_id)
-- @
create index fk_dhcp4_options_subnet on dhcp4_options (dhcp4_subnet_id)
-- @
create index fk_dhcp4_options_shared_network on dhcp4_options (shared_network_name)
-- @
create index fk_dhcp4_options_pool on dhcp4_options (pool_id)
-- @
create table dhcp6_options (
    option_id serial not null,
    code integer not null,
    value bytea,
    formatted_value text,
    space varchar(128) default null,
    persistent boolean not null default false,
    dhcp_client_class varchar(128) default null,
    dhcp6_subnet_id bigint,
    host_id integer,
    scope_id smallint not null,
    user_context text,
    shared_network_name varchar(128) default null,
    pool_id bigint,
    pd_pool_id bigint,
    modification_ts timestamp with time zone not null default current_timestamp,
    cancelled boolean not null default false, -- @34
    client_classes text not null, -- @34
    constraint dhcp6_options_pkey primary key (option_id),
    constraint fk_dhcp6_option_scode foreign key (scope_id)
        references dhcp_option_scope (scope_id) on delete cascade,
    constraint fk_options_host10 foreign key (host_id) references hosts (host_id) on delete cascade
)
-- @
create index fk_dhcp6_options_host1_idx on dhcp6_options (host_id)
-- @
create index fk_dhcp6_options_scope_idx on dhcp6_options (scope_id)
-- @
create index fk_dhcp6_options_subnet on dhcp6_options (dhcp6_subnet_id)
-- @
create index fk_dhcp6_options_shared_network on dhcp6_options (shared_network_name)
-- @
create index fk_dhcp6_options_pool on dhcp6_options (pool_id)
-- @
create index fk_dhcp6_options_pd_pool on dhcp6_options (pd_pool_id)
