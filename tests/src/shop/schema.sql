-- The shop: related tables, and one with every common column type. Same statements for the source and for a mirror.
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE EXTENSION IF NOT EXISTS citext;
CREATE EXTENSION IF NOT EXISTS ltree;
CREATE SCHEMA shop;

CREATE TYPE shop.order_status AS ENUM ('new', 'paid', 'shipped', 'on hold', 'zurück');
CREATE TYPE shop.address AS (street text, number int, city text);
CREATE DOMAIN shop.percent AS numeric(5,2) CHECK (VALUE BETWEEN 0 AND 100);

CREATE TABLE shop.customers (
    id          bigint PRIMARY KEY,
    email       varchar(120) NOT NULL,
    name        text NOT NULL,
    -- Long and stored out of line: an update of another column does not carry it.
    notes       text,
    profile     jsonb,
    tags        text[],
    balance     numeric(12,2) NOT NULL DEFAULT 0,
    birthday    date,
    active      boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL,
    rev         bigint NOT NULL DEFAULT 0
);
ALTER TABLE shop.customers ALTER COLUMN notes SET STORAGE EXTERNAL;

CREATE TABLE shop.products (
    sku         text PRIMARY KEY,
    title       varchar(200) NOT NULL,
    description text,
    price       numeric(10,2) NOT NULL,
    discount    shop.percent,
    weight      double precision,
    stock       int NOT NULL DEFAULT 0,
    attributes  hstore,
    rev         bigint NOT NULL DEFAULT 0
);

CREATE TABLE shop.orders (
    id          bigint PRIMARY KEY,
    customer_id bigint,
    status      shop.order_status NOT NULL DEFAULT 'new',
    total       numeric(12,2) NOT NULL DEFAULT 0,
    comment     text,
    placed_at   timestamp NOT NULL,
    rev         bigint NOT NULL DEFAULT 0
);

CREATE TABLE shop.order_items (
    order_id    bigint NOT NULL,
    line_no     smallint NOT NULL,
    sku         text,
    quantity    int NOT NULL,
    price       numeric(10,2) NOT NULL,
    rev         bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, line_no)
);

CREATE TABLE shop.payments (
    id          uuid PRIMARY KEY,
    order_id    bigint,
    amount      numeric(12,2) NOT NULL,
    method      varchar(20) NOT NULL,
    card        char(6),
    receipt     bytea,
    paid_at     timestamp(3) NOT NULL,
    rev         bigint NOT NULL DEFAULT 0
);

CREATE TABLE shop.every_type (
    id              int PRIMARY KEY,
    t_bool          boolean,
    t_int2          smallint,
    t_int4          integer,
    t_int8          bigint,
    t_float4        real,
    t_float8        double precision,
    t_numeric_p_s   numeric(20,6),
    t_numeric       numeric,
    t_money         money,
    t_text          text,
    t_varchar       varchar(60),
    t_char          char(8),
    t_citext        citext,
    t_bytea         bytea,
    t_json          json,
    t_jsonb         jsonb,
    t_xml           xml,
    t_uuid          uuid,
    t_enum          shop.order_status,
    t_domain        shop.percent,
    t_composite     shop.address,
    t_date          date,
    t_time          time,
    t_time3         time(3),
    t_timetz        timetz,
    t_timestamp     timestamp,
    t_timestamp0    timestamp(0),
    t_timestamp3    timestamp(3),
    t_timestamptz   timestamptz,
    t_interval      interval,
    t_inet          inet,
    t_cidr          cidr,
    t_macaddr       macaddr,
    t_macaddr8      macaddr8,
    t_bit1          bit(1),
    t_bit           bit(12),
    t_varbit        varbit(40),
    t_int4_array    int[],
    t_text_array    text[],
    t_matrix        int[],
    t_numeric_array numeric[],
    t_uuid_array    uuid[],
    t_tstz_array    timestamptz[],
    t_int4range     int4range,
    t_numrange      numrange,
    t_tstzrange     tstzrange,
    t_daterange     daterange,
    t_hstore        hstore,
    t_ltree         ltree,
    t_tsvector      tsvector,
    t_point         point,
    t_oid           oid,
    rev             bigint NOT NULL DEFAULT 0
);
