//! What the database's types are: `pg_type` and `pg_enum`, read as relations need them.

use std::collections::HashMap;

use sqlx::{PgConnection, Row};

/// A type.
#[derive(Clone, Debug)]
pub(crate) struct TypeInfo {
    /// `pg_type.typname`.
    pub(crate) name: String,
    pub(crate) kind: TypeKind,
}

/// What sort of type it is.
#[derive(Clone, Debug)]
pub(crate) enum TypeKind {
    /// A scalar, built in or of an extension.
    Base,
    Array {
        element: u32,
        delimiter: u8,
    },
    Domain {
        base: u32,
        modifier: i32,
    },
    /// With its labels in order.
    Enum {
        labels: Vec<String>,
    },
    /// Composites, ranges and the like.
    Other,
}

/// The types known so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct TypeCatalog {
    types: HashMap<u32, TypeInfo>,
    money_scale: Option<i32>,
}

impl TypeCatalog {
    /// The type, where it is known and still there.
    pub(crate) fn get(&self, oid: u32) -> Option<&TypeInfo> {
        self.types.get(&oid)
    }

    /// How many digits of `money` are a fraction, by the database's `lc_monetary`.
    pub(crate) fn money_scale(&self) -> i32 {
        self.money_scale.unwrap_or(2)
    }

    /// Takes over what `other` knows.
    pub(crate) fn extend(&mut self, other: TypeCatalog) {
        self.types.extend(other.types);
        self.money_scale = other.money_scale.or(self.money_scale);
    }

    /// Reads the types `oids` and all they are made of. `connection` must have the database's own `lc_monetary`.
    pub(crate) async fn load(connection: &mut PgConnection, oids: &[u32]) -> Result<Self, sqlx::Error> {
        let mut catalog = Self::default();
        let oids: Vec<i64> = oids.iter().map(|&oid| i64::from(oid)).collect();
        let rows = sqlx::query(
            "WITH RECURSIVE needed (oid) AS (
               SELECT unnest($1::int8[])::oid
               UNION
               SELECT part.oid FROM needed JOIN pg_catalog.pg_type t ON t.oid = needed.oid
                 CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) part (oid) WHERE part.oid <> 0
             )
             SELECT t.oid::int8, t.typname::text, t.typtype::text, t.typcategory::text, t.typelem::int8,
               t.typlen::int4, t.typdelim::text, t.typbasetype::int8, t.typtypmod::int4,
               ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid
                     ORDER BY e.enumsortorder)
             FROM needed JOIN pg_catalog.pg_type t ON t.oid = needed.oid",
        )
        .bind(oids)
        .fetch_all(&mut *connection)
        .await?;
        for row in rows {
            let name: String = row.try_get(1)?;
            let (typtype, category): (String, String) = (row.try_get(2)?, row.try_get(3)?);
            let (element, length): (i64, i32) = (row.try_get(4)?, row.try_get(5)?);
            let vector = matches!(name.as_str(), "int2vector" | "oidvector"); // arrays with a text of their own
            let kind = match typtype.as_str() {
                "d" => TypeKind::Domain {
                    base: oid(row.try_get(7)?),
                    modifier: row.try_get(8)?,
                },
                "e" => TypeKind::Enum {
                    labels: row.try_get(9)?,
                },
                "b" if category == "A" && length == -1 && element != 0 && !vector => {
                    let delimiter: String = row.try_get(6)?;
                    TypeKind::Array {
                        element: oid(element),
                        delimiter: delimiter.bytes().next().unwrap_or(b','),
                    }
                }
                "b" if !vector => TypeKind::Base,
                _ => TypeKind::Other,
            };
            catalog
                .types
                .insert(oid(row.try_get(0)?), TypeInfo { name, kind });
        }
        if catalog.types.values().any(|info| info.name == "money") {
            // One unit is 10^scale of the smallest parts, which is what the binary form counts.
            let digits: i32 = sqlx::query_scalar(
                "SELECT round(log(('x' || encode(cash_send('1'::money), 'hex'))::bit(64)::int8))::int4",
            )
            .fetch_one(&mut *connection)
            .await?;
            catalog.money_scale = Some(digits);
        }
        Ok(catalog)
    }
}

/// `pg_type.oid` and its like, which travel as 64-bit integers.
pub(crate) fn oid(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(0)
}
