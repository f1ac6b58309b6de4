-- What only the source has: foreign keys whose cascades change keys and delete rows elsewhere.
ALTER TABLE shop.customers ADD CONSTRAINT customers_email UNIQUE (email);
ALTER TABLE shop.orders ADD CONSTRAINT orders_customer
    FOREIGN KEY (customer_id) REFERENCES shop.customers (id) ON UPDATE CASCADE ON DELETE SET NULL;
ALTER TABLE shop.order_items ADD CONSTRAINT items_order
    FOREIGN KEY (order_id) REFERENCES shop.orders (id) ON UPDATE CASCADE ON DELETE CASCADE;
ALTER TABLE shop.order_items ADD CONSTRAINT items_product
    FOREIGN KEY (sku) REFERENCES shop.products (sku) ON UPDATE CASCADE ON DELETE SET NULL;
ALTER TABLE shop.payments ADD CONSTRAINT payments_order
    FOREIGN KEY (order_id) REFERENCES shop.orders (id) ON UPDATE CASCADE ON DELETE SET NULL;
CREATE INDEX ON shop.orders (customer_id);
CREATE INDEX ON shop.order_items (sku);
CREATE INDEX ON shop.payments (order_id);

-- A changed key arrives as a delete and a create; only with the full old row does that create know a long
-- description which the update left untouched.
ALTER TABLE shop.products REPLICA IDENTITY FULL;
