//! What was worked out for a schema, kept, so that a schema is transformed once and not with every record.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tidewater_plugin_api::SchemaRef;

/// Plans by schema. A schema that was seen is known by its address; one that is equal to a known schema is found by its
/// JSON and shares the plan, and so the resulting schema.
#[derive(Debug)]
pub struct PlanCache<T> {
    last: Option<Entry<T>>,
    by_address: HashMap<usize, Entry<T>>,
    by_content: HashMap<Bytes, Arc<T>>,
}

/// The schema is held, so that its address stays its own.
#[derive(Debug)]
struct Entry<T> {
    schema: SchemaRef,
    plan: Arc<T>,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            schema: self.schema.clone(),
            plan: self.plan.clone(),
        }
    }
}

impl<T> Default for PlanCache<T> {
    fn default() -> Self {
        Self {
            last: None,
            by_address: HashMap::new(),
            by_content: HashMap::new(),
        }
    }
}

impl<T> PlanCache<T> {
    /// More schemas than any task meets in practice; beyond it the cache starts anew, so it is bounded.
    const CAPACITY: usize = 1024;

    /// The plan for `schema`, made by `build` where there is none.
    pub fn get<E>(&mut self, schema: &SchemaRef, build: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        if let Some(last) = &self.last
            && Arc::ptr_eq(&last.schema, schema)
        {
            return Ok(last.plan.clone());
        }
        let address = Arc::as_ptr(schema) as usize;
        let known = self.by_address.get(&address).cloned();
        let entry = match known {
            Some(entry) => entry,
            None => self.add(address, schema, build)?,
        };
        let plan = entry.plan.clone();
        self.last = Some(entry);
        Ok(plan)
    }

    fn add<E>(
        &mut self,
        address: usize,
        schema: &SchemaRef,
        build: impl FnOnce() -> Result<T, E>,
    ) -> Result<Entry<T>, E> {
        let json = schema.json();
        let plan = match self.by_content.get(json) {
            Some(plan) => plan.clone(),
            None => Arc::new(build()?),
        };
        if self.by_address.len() >= Self::CAPACITY {
            self.by_address.clear();
            self.by_content.clear();
        }
        let entry = Entry {
            schema: schema.clone(),
            plan: plan.clone(),
        };
        self.by_content.insert(json.clone(), plan);
        self.by_address.insert(address, entry.clone());
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use tidewater_plugin_api::{Schema, Type};

    use super::*;

    #[test]
    fn a_schema_is_planned_once() {
        let mut cache = PlanCache::default();
        let mut built = 0;
        let schemas: Vec<SchemaRef> = [Type::Int32, Type::String, Type::Int32]
            .into_iter()
            .map(|ty| Arc::new(Schema::new(ty)))
            .collect();
        for schema in schemas.iter().chain(&schemas) {
            let plan = cache.get::<()>(schema, || {
                built += 1;
                Ok(schema.ty.name())
            });
            assert_eq!(*plan.expect("planned"), schema.ty.name());
        }
        assert_eq!(built, 2, "the third schema equals the first");
    }

    #[test]
    fn a_failure_is_not_kept_and_the_cache_is_bounded() {
        let mut cache = PlanCache::<u32>::default();
        let schema = Arc::new(Schema::new(Type::Bool));
        assert!(cache.get(&schema, || Err("no")).is_err());
        assert_eq!(cache.get::<()>(&schema, || Ok(7)).map(|plan| *plan), Ok(7));
        for version in 0..3000 {
            let schema = Arc::new(Schema::new(Type::Bool).version(version));
            cache.get::<()>(&schema, || Ok(1)).expect("planned");
            assert!(cache.by_address.len() <= PlanCache::<u32>::CAPACITY);
            assert!(cache.by_content.len() <= PlanCache::<u32>::CAPACITY);
        }
    }
}
