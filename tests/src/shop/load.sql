-- Rows by the same formula on each run. The setting shop.scale multiplies their number: 1 gives some 124,000.
INSERT INTO shop.customers
SELECT i,
       'customer' || i || '@' || (ARRAY['example.com','exämple.org','日本.example'])[1 + i % 3],
       CASE i % 7 WHEN 0 THEN 'Zoë O''Brien' WHEN 1 THEN '王小明' WHEN 2 THEN E'tab\there "quoted"'
                  WHEN 3 THEN E'back\\slash' WHEN 4 THEN '🌊 tide' ELSE 'Customer ' || i END,
       CASE WHEN i % 50 = 0 THEN (SELECT string_agg(md5(i::text || j::text), '') FROM generate_series(1, 300) j)
            WHEN i % 5 = 0 THEN '' WHEN i % 5 = 1 THEN E'two\nlines\r\nand a \\N' END,
       CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN '{}'
            ELSE jsonb_build_object('newsletter', i % 2 = 0, 'score', i / 7.0, 'nested', jsonb_build_array(i, NULL, 'ä"\')) END,
       CASE i % 6 WHEN 0 THEN NULL WHEN 1 THEN '{}'::text[] ELSE ARRAY['vip', NULL, 'a,b', '{x}', 'q"q', '', 'NULL'] END,
       round((i * 37 % 100000) / 100.0 - 200, 2),
       CASE WHEN i % 9 > 0 THEN date '1950-01-01' + (i % 20000)::int END,
       i % 11 > 0,
       timestamptz '2020-01-01 00:00:00+00' + i * interval '17 minutes 3.000001 seconds'
  FROM generate_series(1, greatest(1, 12000 * current_setting('shop.scale')::float8)::bigint) i;

INSERT INTO shop.products
SELECT 'SKU-' || lpad(i::text, 6, '0') || (ARRAY['', '-é', '/a b', '-''q''', '|x'])[1 + i % 5],
       'Product ' || i,
       CASE WHEN i % 10 = 0 THEN repeat(md5(i::text), 400) WHEN i % 10 = 1 THEN NULL ELSE 'A thing with number ' || i END,
       (i * 13 % 100000) / 100.0 + 0.01,
       CASE WHEN i % 3 = 0 THEN (i % 10001) / 100.0 END,
       CASE WHEN i % 4 > 0 THEN i / 3.0 END,
       i % 500,
       CASE WHEN i % 2 = 0 THEN hstore(ARRAY['colour', 'size', 'odd "key"'], ARRAY['blue', NULL, i::text]) END
  FROM generate_series(1, greatest(1, 2000 * current_setting('shop.scale')::float8)::int) i;

INSERT INTO shop.orders
SELECT i,
       CASE WHEN i % 13 > 0 THEN 1 + i * 7 % (SELECT count(*) FROM shop.customers) END,
       (enum_range(NULL::shop.order_status))[1 + i % 5],
       (i * 31 % 1000000) / 100.0,
       CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'leave at the door; "ring" twice' ELSE 'comment ' || i END,
       timestamp '2023-03-01 08:00:00' + i * interval '41.000007 seconds'
  FROM generate_series(1, greatest(1, 25000 * current_setting('shop.scale')::float8)::bigint) i;

INSERT INTO shop.order_items
SELECT o.id, l, p.sku, 1 + (o.id + l) % 9, (o.id * l % 9999) / 100.0
  FROM shop.orders o
  CROSS JOIN LATERAL generate_series(1, 1 + (o.id % 4)::int) l
  LEFT JOIN (SELECT sku, row_number() OVER (ORDER BY sku) AS n, count(*) OVER () AS total FROM shop.products) p
         ON p.n = 1 + (o.id * 3 + l) % p.total;

INSERT INTO shop.payments
SELECT md5('payment' || o.id)::uuid, o.id, o.total,
       (ARRAY['card', 'transfer', 'cash on delivery'])[1 + o.id % 3],
       CASE WHEN o.id % 3 = 0 THEN lpad((o.id % 10000)::text, 4, '0') END,
       CASE o.id % 4 WHEN 0 THEN NULL WHEN 1 THEN ''::bytea ELSE decode(md5(o.id::text), 'hex') || '\x00ff5c'::bytea END,
       o.placed_at + interval '90.5 seconds'
  FROM shop.orders o WHERE o.id % 5 > 0;
