//! `POST /schemas/{id}/rows`: NDJSON, one row a line, all of them validated before the first is stored.

use axum::http::StatusCode;
use proffer_cluster::calls::CustomerRow;
use proffer_engine::catalog::EntityKind;
use proffer_engine::keys::CustomerId;
use proffer_engine::model::schema::SchemaEntity;

use crate::asked::{Accepted, Asked};
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::{entities, json};
use crate::wire::lines::{self, BadLines};

#[derive(serde::Serialize)]
struct Stored {
    rows: usize,
}

/// `POST /api/v1/schemas/{id}/rows`. Each row is upserted whole; visible to the next decision on any node once answered.
pub async fn put(asked: Asked) -> Answered {
    asked.query.only(&[])?;
    let catalog = &*asked.view.catalog;
    let id = asked.param("id");
    let schema = catalog.find(EntityKind::Schema, id).and_then(|id| catalog.schemas().by_id(&id));
    let schema = schema.ok_or_else(|| entities::unknown(EntityKind::Schema, id))?;
    match schema.body.entity_type {
        SchemaEntity::Customer => {}
        SchemaEntity::Reference => {
            return Err(Problem::Conflict {
                message: "rows of reference schemas are not taken in this version".to_owned(),
                faults: Vec::new(),
            });
        }
    }
    let mut bad = BadLines::default();
    let lines = lines::read(asked.bytes(Accepted::Lines)?, &mut bad);
    let mut rows = Vec::with_capacity(lines.len());
    for line in &lines {
        match catalog.check_row(schema.key, &line.value) {
            Ok(row) => rows.push(CustomerRow { customer: CustomerId::new(row.customer), columns: row.columns }),
            Err(faults) => bad.add(line.number, faults),
        }
    }
    bad.into_result()?;
    let rows = asked.handle().put_rows(asked.tenant(), schema.key, rows, asked.deadline).await?;
    Ok(json(StatusCode::OK, &Stored { rows }))
}
