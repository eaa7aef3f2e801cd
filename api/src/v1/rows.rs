//! `POST /schemas/{id}/rows`: NDJSON, one row a line, all of them validated before the first is stored.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_cluster::calls::CustomerRow;
use proffer_engine::catalog::{EntityKind, TenantCatalog};
use proffer_engine::keys::{CustomerId, SchemaKey};
use proffer_engine::model::schema::SchemaEntity;
use proffer_engine::profile::apply::are_values_storable;

use crate::asked::{Accepted, Asked};
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::import::{part_written, whole};
use crate::v1::profiles::TOO_LARGE;
use crate::v1::{entities, json};
use crate::wire::lines::{self, BadLines, Line};

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    rows: usize,
    dry_run: bool,
}

/// `POST /api/v1/schemas/{id}/rows?dryRun=`. Each row is upserted whole; visible to the next decision on any node once answered.
pub async fn put(asked: Arc<Asked>) -> Answered {
    asked.query.only(&["dryRun"])?;
    let dry_run = asked.query.flag("dryRun")?;
    let schema = schema(&asked.view.catalog, asked.param("id"))?;
    let mut bad = BadLines::default();
    let lines = lines::read(asked.bytes(Accepted::Lines)?, &mut bad);
    let rows = check(&asked.view.catalog, schema, &lines, &mut bad);
    bad.into_result()?;
    let count = rows.len();
    if !dry_run {
        let written = asked.handle().put_rows(asked.tenant(), schema, rows, asked.deadline).await;
        written.map_err(|error| part_written(error, None, &lines))?;
    }
    Ok(json(StatusCode::OK, &Stored { rows: count, dry_run }))
}

/// The customer schema of this id or name.
pub fn schema(catalog: &TenantCatalog, id: &str) -> Result<SchemaKey, Problem> {
    let schema = catalog.find(EntityKind::Schema, id).and_then(|id| catalog.schemas().by_id(&id));
    let schema = schema.ok_or_else(|| entities::unknown(EntityKind::Schema, id))?;
    match schema.body.entity_type {
        SchemaEntity::Customer => Ok(schema.key),
        SchemaEntity::Reference => Err(Problem::Conflict {
            message: "rows of reference schemas are not taken in this version".to_owned(),
            faults: Vec::new(),
        }),
    }
}

/// The rows on `lines`; what is wrong with any of them goes to `bad`.
pub fn check(catalog: &TenantCatalog, schema: SchemaKey, lines: &[Line], bad: &mut BadLines) -> Vec<CustomerRow> {
    let mut rows = Vec::with_capacity(lines.len());
    for line in lines {
        match catalog.check_row(schema, &line.value) {
            Ok(row) if are_values_storable(&row.columns) => {
                rows.push(CustomerRow { customer: CustomerId::new(row.customer), columns: row.columns });
            }
            Ok(_) => bad.add(line.number, vec![whole(TOO_LARGE)]),
            Err(faults) => bad.add(line.number, faults),
        }
    }
    rows
}
