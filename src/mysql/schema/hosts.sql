-- The tables of hosts. Those of Kea's configuration backend are not made: columns of options that
-- refer to them have no foreign key.

create table host_identifier_type (
    type tinyint not null,
    name varchar(32),
    primary key (type)
) engine = InnoDB
-- @
insert into host_identifier_type (type, name) values
    (0, 'hw-address'), (1, 'duid'), (2, 'circuit-id'), (3, 'client-id'), (4, 'flex-id')
-- @
create table dhcp_option_scope (
    scope_id tinyint unsigned not null,
    scope_name varchar(32),
    primary key (scope_id)
) engine = InnoDB
-- @
insert into dhcp_option_scope (scope_id, scope_name) values
    (0, 'global'), (1, 'subnet'), (2, 'client-class'), (3, 'host'), (4, 'shared-network'),
    (5, 'pool'), (6, 'pd-pool')
-- @
create table hosts (
    host_id int unsigned not null auto_increment,
    dhcp_identifier varbinary(128) not null, -- @14
    dhcp_identifier varbinary(255) not null, -- @35
    dhcp_identifier_type tinyint not null,
    dhcp4_subnet_id int unsigned,
    dhcp6_subnet_id int unsigned,
    ipv4_address int unsigned,
    hostname varchar(255),
    dhcp4_client_classes varchar(255),
    dhcp6_client_classes varchar(255),
    dhcp4_next_server int unsigned,
    dhcp4_server_hostname varchar(64),
    dhcp4_boot_file_name varchar(128),
    user_context text,
    auth_key varchar(32),
    primary key (host_id),
    unique key key_dhcp4_identifier_subnet_id
        (dhcp_identifier, dhcp_identifier_type, dhcp4_subnet_id),
    unique key key_dhcp6_identifier_subnet_id
        (dhcp_identifier, dhcp_identifier_type, dhcp6_subnet_id),
    key key_dhcp4_ipv4_address_subnet_id_identifier (ipv4_address, dhcp4_subnet_id),
    key hosts_by_hostname (hostname),
    constraint fk_host_identifier_type foreign key (dhcp_identifier_type)
        references host_identifier_type (type)
) engine = InnoDB
-- @
create table ipv6_reservations (
    reservation_id int unsigned not null auto_increment,
    address varchar(39) not null, -- @14
    address binary(16) not null, -- @35
    prefix_len tinyint unsigned not null default 128,
    type tinyint(4) unsigned not null default 0,
    dhcp6_iaid int unsigned,
    host_id int unsigned not null,
    excluded_prefix binary(16), -- @35
    excluded_prefix_len tinyint unsigned not null default 0, -- @35
    primary key (reservation_id),
    key fk_ipv6_reservations_host_idx (host_id),
    key key_dhcp6_address_prefix_len (address, prefix_len),
    constraint fk_ipv6_reservations_Host foreign key (host_id)
        references hosts (host_id) on delete cascade on update cascade
) engine = InnoDB
-- @
create table dhcp4_options (
    option_id bigint unsigned not null auto_increment,
    code tinyint unsigned not null,
    value blob,
    formatted_value text,
    space varchar(128),
    persistent boolean not null default 0,
    dhcp_client_class varchar(128),
    dhcp4_subnet_id int unsigned,
    host_id int unsigned,
    scope_id tinyint unsigned not null,
    user_context text,
    shared_network_name varchar(128),
    pool_id bigint unsigned,
    modification_ts timestamp not null default current_timestamp,
    cancelled boolean not null default 0, -- @35
    client_classes longtext not null, -- @35
    primary key (option_id),
    key fk_options_host1_idx (host_id),
    key fk_dhcp4_options_shared_network (shared_network_name),
    key fk_dhcp4_options_subnet (dhcp4_subnet_id),
    key fk_dhcp4_options_pool (pool_id),
    key fk_dhcp4_options_client_class (dhcp_client_class),
    constraint fk_dhcp4_option_scope foreign key (scope_id)
        references dhcp_option_scope (scope_id),
    constraint fk_dhcp4_options_Host foreign key (host_id)
        references hosts (host_id) on delete cascade on update cascade
) engine = InnoDB
-- @
create table dhcp6_options (
    option_id bigint unsigned not null auto_increment,
    code smallint unsigned not null,
    value blob,
    formatted_value text,
    space varchar(128),
    persistent boolean not null default 0,
    dhcp_client_class varchar(128),
    dhcp6_subnet_id int unsigned,
    host_id int unsigned,
    scope_id tinyint unsigned not null,
    user_context text,
    shared_network_name varchar(128),
    pool_id bigint unsigned,
    pd_pool_id bigint unsigned,
    modification_ts timestamp not null default current_timestamp,
    cancelled boolean not null default 0, -- @35
    client_classes longtext not null, -- @35
    primary key (option_id),
    key fk_options_host1_idx (host_id),
    key fk_dhcp6_options_shared_network (shared_network_name),
    key fk_dhcp6_options_subnet (dhcp6_subnet_id),
    key fk_dhcp6_options_pool (pool_id),
    key fk_dhcp6_options_pd_pool (pd_pool_id),
    key fk_dhcp6_options_client_class (dhcp_client_class),
    constraint fk_dhcp6_option_scope foreign key (scope_id)
        references dhcp_option_scope (scope_id),
    constraint fk_dhcp6_options_Host foreign key (host_id)
        references hosts (host_id) on delete cascade on update cascade
) engine = InnoDB
