//! The live load: concurrent writers that insert, update, delete, change keys, roll back and write in bulk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::DATABASE;
use crate::error::{Error, Result};
use crate::postgres::Postgres;

/// What load to make.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// How many write at once, each on a connection of its own.
    pub writers: u64,
    /// Makes the choices repeatable; their interleaving is not.
    pub seed: u64,
    /// The largest transaction, in rows.
    pub max_bulk_rows: u32,
    /// How long each writer rests after a transaction.
    pub pause: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            writers: 3,
            seed: 7,
            max_bulk_rows: 10_000,
            pause: Duration::ZERO,
        }
    }
}

/// What the writers have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Transactions committed.
    pub committed: u64,
    /// Transactions rolled back, by intent or by the server (deadlock).
    pub rolled_back: u64,
    /// Times the connection was lost and made anew.
    pub reconnects: u64,
}

#[derive(Debug, Default)]
struct Counters {
    committed: AtomicU64,
    rolled_back: AtomicU64,
    reconnects: AtomicU64,
}

/// A running load.
#[derive(Debug)]
pub struct Writers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<()>>,
    counters: Arc<Counters>,
}

impl Writers {
    /// Starts writing to the shop on `server`.
    pub async fn start(server: &Postgres, options: &WriterOptions) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let counters = Arc::new(Counters::default());
        let columns = every_type_columns(server).await?;
        let mut tasks = JoinSet::new();
        for number in 0..options.writers {
            let writer = Writer {
                connect: server.connect_options(DATABASE),
                rng: Rng::with_seed(options.seed.wrapping_mul(1_000_003).wrapping_add(number)),
                max_bulk_rows: options.max_bulk_rows.max(1),
                every_type_columns: columns.clone(),
            };
            tasks.spawn(writer.run(stopped.clone(), Arc::clone(&counters), options.pause));
        }
        Ok(Self {
            stop,
            tasks,
            counters,
        })
    }

    /// What they have done so far.
    pub fn totals(&self) -> Totals {
        Totals {
            committed: self.counters.committed.load(Ordering::Relaxed),
            rolled_back: self.counters.rolled_back.load(Ordering::Relaxed),
            reconnects: self.counters.reconnects.load(Ordering::Relaxed),
        }
    }

    /// Lets each writer finish its transaction and stop.
    pub async fn finish(mut self) -> Result<Totals> {
        let _ = self.stop.send(true);
        while let Some(done) = self.tasks.join_next().await {
            done.map_err(|join| Error::Child {
                what: format!("a writer ended: {join}"),
                output: String::new(),
            })??;
        }
        Ok(self.totals())
    }
}

async fn every_type_columns(server: &Postgres) -> Result<String> {
    let list = server
        .value(
            DATABASE,
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
              WHERE attrelid = 'shop.every_type'::regclass AND attnum > 1 AND NOT attisdropped AND attname <> 'rev'",
        )
        .await?;
    Ok(list.unwrap_or_default())
}

struct Writer {
    connect: PgConnectOptions,
    rng: Rng,
    max_bulk_rows: u32,
    every_type_columns: String,
}

impl Writer {
    async fn run(
        mut self,
        stop: watch::Receiver<bool>,
        counters: Arc<Counters>,
        pause: Duration,
    ) -> Result<()> {
        let mut connection: Option<PgConnection> = None;
        while !*stop.borrow() {
            let open = match &mut connection {
                Some(open) => open,
                none => {
                    if let Ok(new) = PgConnection::connect_with(&self.connect).await {
                        none.insert(new)
                    } else {
                        // The server is being restarted by the test; there is no event to wait for on this side.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                }
            };
            let sql = self.transaction();
            let commits = !sql.ends_with("ROLLBACK");
            match sqlx::raw_sql(AssertSqlSafe(sql.clone()))
                .execute(&mut *open)
                .await
            {
                Ok(_) if commits => counters.committed.fetch_add(1, Ordering::Relaxed),
                Ok(_) => counters.rolled_back.fetch_add(1, Ordering::Relaxed),
                Err(sqlx::Error::Database(error)) if is_conflict(error.code().as_deref()) => {
                    let rollback = sqlx::raw_sql("ROLLBACK").execute(open).await;
                    if rollback.is_err() {
                        connection = None;
                    }
                    counters.rolled_back.fetch_add(1, Ordering::Relaxed)
                }
                Err(error) if is_lost(&error) => {
                    connection = None;
                    counters.reconnects.fetch_add(1, Ordering::Relaxed)
                }
                Err(error) => {
                    return Err(Error::Sql {
                        doing: format!("writing to the shop with {sql}"),
                        source: error,
                    });
                }
            };
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        if let Some(connection) = connection {
            let _ = connection.close().await;
        }
        Ok(())
    }

    /// The next transaction's statements.
    fn transaction(&mut self) -> String {
        let body = match self.rng.u32(0..100) {
            0..30 => self.place_order(),
            30..42 => self.advance_order(),
            42..52 => self.touch_customer(),
            52..60 => self.touch_product(),
            60..66 => format!("DELETE FROM shop.orders WHERE id = {}", self.order()),
            66..70 => self.rename_product(),
            70..74 => format!(
                "UPDATE shop.orders SET id = nextval('audit.live_id') WHERE id = {}",
                self.order()
            ),
            74..84 => self.every_type(),
            84..88 => self.same_row_again(),
            88..94 => self.with_savepoints(),
            94..97 => return format!("BEGIN; {}; {}; ROLLBACK", self.bulk(), self.place_order()),
            _ => self.bulk(),
        };
        format!("BEGIN; {body}; COMMIT")
    }

    fn order(&mut self) -> String {
        pick(&mut self.rng, "id", "shop.orders")
    }

    fn customer(&mut self) -> String {
        // Customers have plain ids without gaps at the start.
        format!(
            "(SELECT id FROM shop.customers WHERE id >= {} ORDER BY id LIMIT 1)",
            self.rng.u32(1..12_000)
        )
    }

    fn product(&mut self) -> String {
        let at = self.rng.u32(1..2_000);
        format!("(SELECT sku FROM shop.products WHERE sku >= 'SKU-{at:06}' ORDER BY sku LIMIT 1)")
    }

    fn place_order(&mut self) -> String {
        let (customer, product, salt) = (self.customer(), self.product(), self.rng.u64(..));
        let lines = self.rng.u32(1..6);
        format!(
            "INSERT INTO shop.orders (id, customer_id, status, total, comment, placed_at)
                 VALUES (nextval('audit.live_id'), {customer}, 'new', {salt} % 100000 / 100.0,
                         nullif(repeat('bitte ', {lines} - 1), ''), clock_timestamp());
             INSERT INTO shop.order_items (order_id, line_no, sku, quantity, price)
                 SELECT currval('audit.live_id'), l, {product}, l, l * 1.25 FROM generate_series(1, {lines}) l;
             INSERT INTO shop.payments (id, order_id, amount, method, receipt, paid_at)
                 VALUES (gen_random_uuid(), currval('audit.live_id'), 12.50, 'card', decode(md5('{salt}'), 'hex'), clock_timestamp())"
        )
    }

    fn advance_order(&mut self) -> String {
        let order = self.order();
        let status = self
            .rng
            .choice(["paid", "shipped", "on hold", "zurück"])
            .unwrap_or("paid");
        format!("UPDATE shop.orders SET status = '{status}', total = total + 0.01 WHERE id = {order}")
    }

    fn touch_customer(&mut self) -> String {
        let customer = self.customer();
        match self.rng.u32(0..4) {
            // A new long text, then updates that leave it alone.
            0 => {
                let salt = self.rng.u32(..);
                format!(
                    "UPDATE shop.customers SET notes = (SELECT string_agg(md5({salt} || '-' || j), '') FROM generate_series(1, 200) j) WHERE id = {customer}"
                )
            }
            1 => format!(
                "UPDATE shop.customers SET notes = NULL, tags = tags || 'seen'::text WHERE id = {customer}"
            ),
            _ => format!(
                "UPDATE shop.customers SET balance = balance + 1.5, active = NOT active WHERE id = {customer}"
            ),
        }
    }

    fn touch_product(&mut self) -> String {
        let product = self.product();
        format!("UPDATE shop.products SET price = price + 0.01, stock = stock - 1 WHERE sku = {product}")
    }

    fn rename_product(&mut self) -> String {
        let product = self.product();
        let salt = self.rng.u64(..);
        format!("UPDATE shop.products SET sku = left(sku, 10) || '~{salt:x}' WHERE sku = {product}")
    }

    fn every_type(&mut self) -> String {
        let columns = &self.every_type_columns;
        // Rows 0 to 5 hold the edges of each type; they are copied, never changed.
        let from = self.rng.u32(0..30);
        let target = pick(&mut self.rng, "id", "shop.every_type");
        match self.rng.u32(0..5) {
            0 => format!("DELETE FROM shop.every_type WHERE id = {target} AND id > 9"),
            1 => format!(
                "UPDATE shop.every_type SET ({columns}) = (SELECT {columns} FROM shop.every_type WHERE id = {from})
                  WHERE id = {target} AND id > 9 AND EXISTS (SELECT FROM shop.every_type WHERE id = {from})"
            ),
            _ => format!(
                "INSERT INTO shop.every_type (id, {columns})
                 SELECT nextval('audit.live_id'), {columns} FROM shop.every_type WHERE id = {from}"
            ),
        }
    }

    /// One row several times in a transaction, and one that comes and goes within it.
    fn same_row_again(&mut self) -> String {
        let order = self.order();
        let one = format!("(SELECT max(id) FROM shop.orders WHERE id <= {order})");
        format!(
            "UPDATE shop.orders SET total = total + 1 WHERE id = {one};
             UPDATE shop.orders SET comment = 'again' WHERE id = {one};
             UPDATE shop.orders SET comment = NULL WHERE id = {one};
             INSERT INTO shop.orders (id, placed_at) VALUES (nextval('audit.live_id'), now());
             DELETE FROM shop.orders WHERE id = currval('audit.live_id');
             INSERT INTO shop.orders (id, placed_at) VALUES (currval('audit.live_id'), now())"
        )
    }

    fn with_savepoints(&mut self) -> String {
        let (first, second, third) = (self.place_order(), self.bulk(), self.advance_order());
        format!(
            "{first}; SAVEPOINT one; {second}; SAVEPOINT two; {third}; ROLLBACK TO one; {third};
             SAVEPOINT three; {first}; RELEASE three"
        )
    }

    /// 1 to `max_bulk_rows` rows, small counts as likely as large ones.
    fn bulk(&mut self) -> String {
        let magnitude = f64::from(self.max_bulk_rows).ln() * self.rng.f64();
        let rows = (magnitude.exp().round() as u32).clamp(1, self.max_bulk_rows);
        match self.rng.u32(0..4) {
            0 => format!(
                "UPDATE shop.payments SET amount = amount + 0.01 WHERE id IN
                     (SELECT id FROM shop.payments WHERE id > md5('{}')::uuid ORDER BY id LIMIT {rows})",
                self.rng.u32(..)
            ),
            1 => format!(
                "DELETE FROM shop.payments WHERE id IN
                     (SELECT id FROM shop.payments WHERE id > md5('{}')::uuid ORDER BY id LIMIT {rows} / 2 + 1)",
                self.rng.u32(..)
            ),
            _ => format!(
                "INSERT INTO shop.payments (id, amount, method, card, paid_at)
                 SELECT gen_random_uuid(), i / 100.0, 'transfer', lpad((i % 10000)::text, 4, '0'), clock_timestamp()
                   FROM generate_series(1, {rows}) i"
            ),
        }
    }
}

/// A subquery for the key of a row that is probably there: among the loaded ones or among those made since.
fn pick(rng: &mut Rng, key: &str, table: &str) -> String {
    let at = rng.u32(1..25_000);
    if rng.bool() {
        format!("(SELECT {key} FROM {table} WHERE {key} >= {at} ORDER BY {key} LIMIT 1)")
    } else {
        format!(
            "(SELECT {key} FROM {table} WHERE {key} <= (SELECT last_value FROM audit.live_id) - {at} % 500 ORDER BY {key} DESC LIMIT 1)"
        )
    }
}

/// Deadlocks and the like between writers: the transaction is lost, which is part of the load.
fn is_conflict(code: Option<&str>) -> bool {
    matches!(code, Some("40P01" | "40001" | "23505" | "23503" | "25P02"))
}

/// The server went away or refuses for the moment.
fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("57P") || code.starts_with("08")),
        _ => false,
    }
}
