//! What to try while the demo is left running.

use tidewater_tests::daemon::Daemon;
use tidewater_tests::postgres::{Postgres, SUPERUSER};

use crate::run::{Stand, lines_path};

/// Prints the commands, with this run's ports and paths.
pub fn explain(stand: &Stand, daemon: &Daemon) {
    let url = |server: &Postgres| {
        format!(
            "postgres://{SUPERUSER}:{}@127.0.0.1:{}/shop",
            server.password(),
            server.port()
        )
    };
    let (source, target) = (url(&stand.source), url(&stand.target));
    println!(
        "Everything is still running. Try, in another terminal:

  psql '{source}' -c \"UPDATE shop.orders SET comment = 'hello' WHERE id = 1\"
  psql '{target}' -c \"SELECT * FROM shop.orders WHERE id = 1\"
  psql '{source}' -c \"DELETE FROM shop.customers WHERE id = 7\"
  tail -f {lines}
  echo 'GET /shop 200' >> {access}      # arrives in {copy}
  psql '{source}' -c 'SELECT slot_name, active, confirmed_flush_lsn, pg_current_wal_lsn() FROM pg_replication_slots'

  The daemon is process {pid}, its data is in {data}.
  Stop everything with Ctrl-C; the servers and their data go too.",
        lines = lines_path(&stand.work).display(),
        access = stand.work.join("access.log").display(),
        copy = stand.work.join("out/access.jsonl").display(),
        pid = daemon.pid(),
        data = stand.options.data_dir.display(),
    );
}
