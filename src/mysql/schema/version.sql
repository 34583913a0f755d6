-- The version, last: a schema without one is not complete.

create table schema_version (
    version int not null,
    minor int,
    primary key (version)
) engine = InnoDB
-- @
insert into schema_version (version, minor) values
    (14, 0) -- @14
    (35, 0) -- @35
