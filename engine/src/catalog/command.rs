//! What can be asked of the catalogue, as stored in the log.

use bincode::{Decode, Encode};

use crate::keys::{Revision, TenantId};
use crate::model::record::choice;
use crate::time::Timestamp;
use crate::value::Value;

/// A stored catalogue command, by format version.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Command {
    /// The first format.
    V1(CommandV1),
}

/// One write by one actor to one tenant. Time and ids were chosen by the proposer: `apply` invents nothing.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct CommandV1 {
    /// Whose catalogue.
    pub tenant: TenantId,
    /// Who asks.
    pub actor: Actor,
    /// When it was proposed; becomes `createdAt` and `updatedAt`.
    pub at: Timestamp,
    /// What is asked.
    pub op: Op,
}

/// Who makes a change, for the audit log and for writes that need the admin role.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Actor {
    /// Name of the API key or system part.
    pub name: String,
    /// Whether the actor holds the admin role (mandatory offers need it).
    pub admin: bool,
}

/// A change to a tenant's catalogue.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Op {
    /// Makes the tenant of the command.
    CreateTenant,
    /// Makes or replaces an API key.
    PutApiKey {
        /// Public id of the key.
        id: String,
        /// SHA-256 of the secret.
        hash: [u8; 32],
        /// What it may do.
        roles: Vec<Role>,
        /// Display name.
        name: String,
    },
    /// Removes an API key.
    RevokeApiKey {
        /// Public id of the key.
        id: String,
    },
    /// Makes an entity.
    Create {
        /// Of which kind.
        kind: EntityKind,
        /// Its id, never used before. Categories ignore it: theirs is `cat_` + slug of the name.
        id: String,
        /// The body as sent.
        body: Value,
    },
    /// Changes an entity: members given replace the stored ones whole, null resets to the default.
    Update {
        /// Of which kind.
        kind: EntityKind,
        /// Its id.
        id: String,
        /// The members to replace.
        patch: Value,
        /// Refuse unless the entity's revision is this.
        expected: Option<Revision>,
    },
    /// Removes an entity.
    Delete {
        /// Of which kind.
        kind: EntityKind,
        /// Its id.
        id: String,
        /// Also remove what hangs on it (domain.md §2).
        force: bool,
        /// Whether a shard holds an impression or outcome of it (offers); found by the caller before the command.
        has_history: bool,
    },
    /// Makes a flow's draft its next version.
    PublishFlow {
        /// Id or key of the flow.
        id: String,
    },
    /// Appends an earlier version of a flow as its newest.
    RollbackFlow {
        /// Id or key of the flow.
        id: String,
        /// Number of the version to return to.
        version: u32,
    },
    /// Changes tenant settings, like an update.
    UpdateSettings {
        /// The members to replace.
        patch: Value,
    },
}

choice! {
    /// Kinds of authored entities, by the path segment of their collection.
    pub enum EntityKind {
        /// A category.
        Category => "categories",
        /// A sub-category.
        SubCategory => "sub-categories",
        /// An offer.
        Offer => "offers",
        /// A creative.
        Creative => "creatives",
        /// A channel.
        Channel => "channels",
        /// A placement.
        Placement => "placements",
        /// A collection.
        Collection => "collections",
        /// An activity.
        Activity => "activities",
        /// A qualification rule.
        Rule => "qualification-rules",
        /// A contact policy.
        Policy => "contact-policies",
        /// A schema.
        Schema => "schemas",
        /// A decision flow.
        Flow => "decision-flows",
        /// A guardrail.
        Guardrail => "guardrails",
        /// A behavioural metric.
        Metric => "behavioral-metrics",
        /// A model that P comes from.
        Model => "algorithm-models",
    }
}

impl EntityKind {
    /// What one entity of this kind is called in a sentence.
    pub fn noun(self) -> &'static str {
        match self {
            EntityKind::Category => "category",
            EntityKind::SubCategory => "sub-category",
            EntityKind::Offer => "offer",
            EntityKind::Creative => "creative",
            EntityKind::Channel => "channel",
            EntityKind::Placement => "placement",
            EntityKind::Collection => "collection",
            EntityKind::Activity => "activity",
            EntityKind::Rule => "qualification rule",
            EntityKind::Policy => "contact policy",
            EntityKind::Schema => "schema",
            EntityKind::Flow => "decision flow",
            EntityKind::Guardrail => "guardrail",
            EntityKind::Metric => "behavioural metric",
            EntityKind::Model => "algorithm model",
        }
    }

    /// What ids of this kind begin with, for proposers that make them.
    pub fn id_prefix(self) -> &'static str {
        match self {
            EntityKind::Category => "cat_",
            EntityKind::SubCategory => "sub_",
            EntityKind::Offer => "offer_",
            EntityKind::Creative => "crt_",
            EntityKind::Channel => "chn_",
            EntityKind::Placement => "plc_",
            EntityKind::Collection => "col_",
            EntityKind::Activity => "act_",
            EntityKind::Rule => "rule_",
            EntityKind::Policy => "pol_",
            EntityKind::Schema => "sch_",
            EntityKind::Flow => "flow_",
            EntityKind::Guardrail => "grd_",
            EntityKind::Metric => "met_",
            EntityKind::Model => "mdl_",
        }
    }
}

choice! {
    /// What an API key may do (domain.md §9).
    pub enum Role {
        /// Recommend, respond, release, profiles.
        Channel => "channel",
        /// Read everything authored.
        Viewer => "viewer",
        /// Write everything authored but mandatory offers.
        Editor => "editor",
        /// Write everything of the tenant.
        Admin => "admin",
        /// Operate the cluster.
        Operator => "operator",
    }
}
