-- The version, last: a schema without one is not complete.

create table schema_version (
    version integer not null,
    minor integer,
    constraint schema_version_pkey primary key (version)
)
-- @
insert into schema_version (version, minor) values
    (13, 0) -- @13
    (34, 0) -- @34
