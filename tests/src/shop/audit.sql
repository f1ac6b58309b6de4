-- The outside ledger: what was committed, counted by the database itself. Rolled-back changes roll their entries back.
-- Each change of a row gets a revision of its own, so that an event can be told from every other.
CREATE SCHEMA audit;
CREATE SEQUENCE audit.revision;
CREATE TABLE audit.changes (
    seq     bigserial PRIMARY KEY,
    tbl     text NOT NULL,
    op      "char" NOT NULL,   -- c create, u update, d delete: an update of the key counts as d and c
    key     text NOT NULL,     -- the key's columns, joined by |
    rev     bigint             -- the row's revision after the change; NULL for d
);

CREATE FUNCTION audit.stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.rev := nextval('audit.revision');
    RETURN NEW;
END $$;

DO $$
DECLARE
    t record;
    old_key text;
    new_key text;
BEGIN
    FOR t IN
        SELECT c.relname, array_agg(a.attname ORDER BY k.ord) AS columns
          FROM pg_index i
          JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'shop'::regnamespace
          CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(attnum, ord)
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
         WHERE i.indisprimary
         GROUP BY c.relname
    LOOP
        SELECT string_agg(format('OLD.%I::text', n), ' || ''|'' || '),
               string_agg(format('NEW.%I::text', n), ' || ''|'' || ')
          INTO old_key, new_key FROM unnest(t.columns) AS n;
        EXECUTE format($f$
            CREATE FUNCTION audit.%1$I() RETURNS trigger LANGUAGE plpgsql AS $body$
            BEGIN
                IF TG_OP = 'INSERT' THEN
                    INSERT INTO audit.changes (tbl, op, key, rev) VALUES (%1$L, 'c', %3$s, NEW.rev);
                ELSIF TG_OP = 'DELETE' THEN
                    INSERT INTO audit.changes (tbl, op, key) VALUES (%1$L, 'd', %2$s);
                ELSIF %2$s = %3$s THEN
                    INSERT INTO audit.changes (tbl, op, key, rev) VALUES (%1$L, 'u', %3$s, NEW.rev);
                ELSE
                    INSERT INTO audit.changes (tbl, op, key, rev)
                        VALUES (%1$L, 'd', %2$s, NULL), (%1$L, 'c', %3$s, NEW.rev);
                END IF;
                RETURN NULL;
            END $body$ $f$, t.relname, old_key, new_key);
        EXECUTE format('CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON shop.%I FOR EACH ROW EXECUTE FUNCTION audit.stamp()', t.relname);
        EXECUTE format('CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON shop.%1$I FOR EACH ROW EXECUTE FUNCTION audit.%1$I()', t.relname);
    END LOOP;
END $$;
