//! Decision flows: versioned pipelines of nodes (domain.md §4).

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

use crate::codec::Level;
use crate::model::branch::{CallFlow, Conditional};
use crate::model::fault::Faults;
use crate::model::filter::FilterGroup;
use crate::model::objective::Optimize;
use crate::model::property::SetProperties;
use crate::model::record::{Field, choice, record};
use crate::model::scoring::{ExpressionMethod, ExpressionScore};
use crate::model::{Ref, Status};
use crate::value::Value;

record! {
    /// A flow: a draft, and the versions published from it.
    pub struct DecisionFlow {
        /// What requests call it; unique in the tenant.
        pub key: String => "key",
        /// Display name.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// Publishing makes it active.
        pub status: Status => "status" = Status::Draft,
        /// What the next publish publishes. Structure is checked at publish; here only its shape as JSON.
        pub draft_config: Value => "draftConfig" = Value::Null,
    }
}

/// A published, immutable version of a flow.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct FlowVersion {
    /// Counts publishes from 1.
    pub number: u32,
    /// When.
    pub published_at: crate::time::Timestamp,
    /// What.
    pub config: FlowConfig,
    /// The draft it came from, as written.
    pub source: Value,
}

record! {
    /// The shape of `draftConfig`, format 2.
    pub struct FlowConfig {
        /// Format; 2.
        pub version: u32 => "version",
        /// Settings of the flow as a whole.
        pub flow_config: FlowSettings => "flowConfig" = FlowSettings::default(),
        /// The pipeline, by phase and position.
        pub nodes: Vec<FlowNode> => "nodes",
    }
}

record! {
    /// Settings of a flow as a whole.
    #[derive(Default)]
    pub struct FlowSettings {
        /// Holdout.
        pub experiment: Option<Experiment> => "experiment" = None,
    }
}

record! {
    /// Withholds offers from a stable share of customers.
    pub struct Experiment {
        /// Off: everybody is treated.
        pub enabled: bool => "enabled" = false,
        /// Name of the experiment; default the flow's key.
        pub key: Option<String> => "key" = None,
        /// Share held out, 0–100.
        pub holdout_percent: f64 => "holdoutPercent" = 0.0,
        /// What held-out customers get.
        pub control_group_action: ControlGroupAction => "controlGroupAction" = ControlGroupAction::NoOffers,
        /// Days in which outcomes count, > 0.
        pub window_days: u32 => "windowDays" = 30,
    }
}

choice! {
    /// What held-out customers get.
    pub enum ControlGroupAction {
        /// No general offers.
        NoOffers => "no_offers",
        /// The same filters, ranked by priority only.
        PriorityOnly => "priority_only",
    }
}

/// A node of a pipeline: `{id, type, phase, position, config}` with the config its type calls for.
#[derive(Clone, Debug, PartialEq, Encode)]
pub struct FlowNode {
    /// Unique in the flow.
    pub id: String,
    /// 1 narrow, 2 rank, 3 answer.
    pub phase: u8,
    /// Order in the flow.
    pub position: u32,
    /// What it does.
    pub node: Node,
}

/// As if derived, but for the levels counted: nodes hold nodes, and what a peer sends must not take the whole stack.
impl<Context> Decode<Context> for FlowNode {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let _level = Level::enter()?;
        Ok(FlowNode {
            id: Decode::decode(decoder)?,
            phase: Decode::decode(decoder)?,
            position: Decode::decode(decoder)?,
            node: Decode::decode(decoder)?,
        })
    }
}

bincode::impl_borrow_decode!(FlowNode);

/// What a node does, with its typed config.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Node {
    /// Which offers take part.
    Inventory(Inventory),
    /// Which of them have content.
    MatchCreatives(MatchCreatives),
    /// Loads rows into `customer.*` (or another prefix).
    Enrich(Enrich),
    /// Qualification rules.
    Qualify(Selection),
    /// Contact policies.
    ContactPolicy(Selection),
    /// Scores.
    Score(Box<Score>),
    /// Best first.
    Rank(Rank),
    /// Computed fields.
    Compute(Compute),
    /// Shape of the answer.
    Response(Response),
    /// Conditions that offers must meet.
    Filter(FilterGroup),
    /// How the slots of a request share the offers.
    Group(Group),
    /// Some nodes or others.
    Conditional(Conditional),
    /// The nodes of another flow.
    CallFlow(CallFlow),
    /// Values beside each proposition.
    SetProperties(SetProperties),
    /// Aims weighed against each other.
    Optimize(Optimize),
    /// Scores by an expression; a `score` node too.
    ScoreByExpression(Box<ExpressionScore>),
}

/// `{type}` words, for reading and messages.
const NODE_TYPES: &[(&str, Option<u8>)] = &[
    ("inventory", Some(1)),
    ("match_creatives", Some(1)),
    ("enrich", Some(1)),
    ("qualify", Some(1)),
    ("contact_policy", Some(1)),
    ("filter", Some(1)),
    ("conditional", Some(1)),
    ("call_flow", None),
    ("score", Some(2)),
    ("optimize", Some(2)),
    ("rank", Some(2)),
    ("group", Some(2)),
    ("compute", Some(3)),
    ("set_properties", Some(3)),
    ("response", Some(3)),
];

impl Node {
    /// The word on the wire.
    pub fn type_name(&self) -> &'static str {
        match self {
            Node::Inventory(_) => "inventory",
            Node::MatchCreatives(_) => "match_creatives",
            Node::Enrich(_) => "enrich",
            Node::Qualify(_) => "qualify",
            Node::ContactPolicy(_) => "contact_policy",
            Node::Score(_) | Node::ScoreByExpression(_) => "score",
            Node::Rank(_) => "rank",
            Node::Compute(_) => "compute",
            Node::Response(_) => "response",
            Node::Filter(_) => "filter",
            Node::Group(_) => "group",
            Node::Conditional(_) => "conditional",
            Node::CallFlow(_) => "call_flow",
            Node::SetProperties(_) => "set_properties",
            Node::Optimize(_) => "optimize",
        }
    }

    /// The phase its type belongs to; `None` for calls, which belong to any.
    pub fn phase(&self) -> Option<u8> {
        NODE_TYPES.iter().find(|(name, _)| *name == self.type_name()).and_then(|(_, phase)| *phase)
    }
}

record! {
    /// The members of a node before its config is read by type.
    pub struct RawNode {
        /// Unique in the flow.
        pub id: String => "id",
        /// Type word.
        pub node_type: String => "type",
        /// 1, 2 or 3.
        pub phase: u8 => "phase",
        /// Order in the flow.
        pub position: u32 => "position",
        /// By type.
        pub config: Value => "config" = Value::map::<&str>([]),
    }
}

impl Field for FlowNode {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        let raw = RawNode::read(value, faults)?;
        let node = faults.within("config", |faults| {
            Some(match raw.node_type.as_str() {
                "inventory" => Node::Inventory(Field::read(&raw.config, faults)?),
                "match_creatives" => Node::MatchCreatives(Field::read(&raw.config, faults)?),
                "enrich" => Node::Enrich(Field::read(&raw.config, faults)?),
                "qualify" => Node::Qualify(Field::read(&raw.config, faults)?),
                "contact_policy" => Node::ContactPolicy(Field::read(&raw.config, faults)?),
                "score" if is_by_expression(&raw.config) => {
                    Node::ScoreByExpression(Box::new(Field::read(&raw.config, faults)?))
                }
                "score" => Node::Score(Box::new(Field::read(&raw.config, faults)?)),
                "rank" => Node::Rank(Field::read(&raw.config, faults)?),
                "compute" => Node::Compute(Field::read(&raw.config, faults)?),
                "response" => Node::Response(Field::read(&raw.config, faults)?),
                "filter" => Node::Filter(Field::read(&raw.config, faults)?),
                "group" => Node::Group(Field::read(&raw.config, faults)?),
                "conditional" => Node::Conditional(Field::read(&raw.config, faults)?),
                "call_flow" => Node::CallFlow(Field::read(&raw.config, faults)?),
                "set_properties" => Node::SetProperties(Field::read(&raw.config, faults)?),
                "optimize" => Node::Optimize(Field::read(&raw.config, faults)?),
                _ => return None,
            })
        });
        if !NODE_TYPES.iter().any(|(name, _)| *name == raw.node_type) {
            faults.add_at(
                "type",
                match raw.node_type.as_str() {
                    "extension_point" => "extension_point is refused: flows run no code from outside".to_owned(),
                    other => format!("node type {other:?} is not supported"),
                },
            );
        }
        Some(FlowNode { id: raw.id, phase: raw.phase, position: raw.position, node: node? })
    }

    fn write(&self) -> Value {
        let config = match &self.node {
            Node::Inventory(config) => config.write(),
            Node::MatchCreatives(config) => config.write(),
            Node::Enrich(config) => config.write(),
            Node::Qualify(config) | Node::ContactPolicy(config) => config.write(),
            Node::Score(config) => config.write(),
            Node::Rank(config) => config.write(),
            Node::Compute(config) => config.write(),
            Node::Response(config) => config.write(),
            Node::Filter(config) => config.write(),
            Node::Group(config) => config.write(),
            Node::Conditional(config) => config.write(),
            Node::CallFlow(config) => config.write(),
            Node::SetProperties(config) => config.write(),
            Node::Optimize(config) => config.write(),
            Node::ScoreByExpression(config) => config.write(),
        };
        Value::map([
            ("id", Value::text(&self.id)),
            ("type", Value::text(self.node.type_name())),
            ("phase", Value::Number(f64::from(self.phase))),
            ("position", Value::Number(f64::from(self.position))),
            ("config", config),
        ])
    }
}

fn is_by_expression(config: &Value) -> bool {
    let method = config.as_map().and_then(|members| members.get("method")).and_then(Value::as_text);
    method == Some(ExpressionMethod::Expression.as_str())
}

record! {
    /// Which offers take part.
    pub struct Inventory {
        /// How they are chosen.
        pub scope: InventoryScope => "scope" = InventoryScope::All,
        /// For `category`.
        pub category_ids: Vec<Ref> => "categoryIds" = Vec::new(),
        /// For `category`.
        pub sub_category_ids: Vec<Ref> => "subCategoryIds" = Vec::new(),
        /// For `manual`.
        pub offer_ids: Vec<Ref> => "offerIds" = Vec::new(),
        /// Only active ones, outside simulate.
        pub include_statuses: Vec<Status> => "includeStatuses" = vec![Status::Active],
    }
}

choice! {
    /// How an inventory is chosen.
    pub enum InventoryScope {
        /// Every general offer.
        All => "all",
        /// Those of categories or sub-categories.
        Category => "category",
        /// Named ones.
        Manual => "manual",
    }
}

record! {
    /// Which offers have content for the request.
    pub struct MatchCreatives {
        /// Drop offers that have none.
        pub require_creative: bool => "requireCreative" = true,
        /// How placements match.
        pub placement_match_mode: PlacementMatchMode => "placementMatchMode" = PlacementMatchMode::Any,
    }
}

choice! {
    /// How a creative's placement must match the slot's.
    pub enum PlacementMatchMode {
        /// The same placement.
        Exact => "exact",
        /// The same placement, else one for any placement of the channel.
        Any => "any",
        /// Placements are not looked at.
        None => "none",
    }
}

record! {
    /// Loads rows.
    pub struct Enrich {
        /// From where.
        pub sources: Vec<EnrichSource> => "sources",
    }
}

record! {
    /// One schema to load from.
    pub struct EnrichSource {
        /// The schema.
        pub schema_id: Ref => "schemaId",
        /// Its unique column (customer schemas), or a profile attribute (reference schemas).
        pub lookup_key: String => "lookupKey",
        /// Columns; empty = all.
        pub fields: Vec<String> => "fields" = Vec::new(),
        /// Namespace they appear under.
        pub prefix: String => "prefix" = "customer".to_owned(),
    }
}

record! {
    /// All rules (or policies), or some.
    pub struct Selection {
        /// Which.
        pub mode: SelectionMode => "mode" = SelectionMode::All,
        /// For `selected`.
        pub ids: Vec<Ref> => "ids" = Vec::new(),
    }
}

choice! {
    /// Whether a node uses all rules or named ones.
    pub enum SelectionMode {
        /// All active ones.
        All => "all",
        /// Those in `ids`.
        Selected => "selected",
    }
}

record! {
    /// How candidates are scored.
    pub struct Score {
        /// Which formula.
        pub method: ScoreMethod => "method" = ScoreMethod::PriorityWeighted,
        /// Model that gives P.
        pub model_key: Option<String> => "modelKey" = None,
        /// Weights of PRIE-U, for `formula`.
        pub formula: Option<FormulaWeights> => "formula" = None,
        /// Signals of R; none on = R is 1.
        pub relevance: Relevance => "relevance" = Relevance { channel_match: None, freshness: None, segment_match: None, half_life_days: 7.0 },
        /// Blend of I; none = businessValue.
        pub impact: Option<ImpactBlend> => "impact" = None,
        /// Other weights for some requests or offers; first match wins.
        pub overrides: Vec<ScoreOverride> => "overrides" = Vec::new(),
    }
}

choice! {
    /// Scoring methods.
    pub enum ScoreMethod {
        /// priority/100 × creative weight/100.
        PriorityWeighted => "priority_weighted",
        /// P.
        Propensity => "propensity",
        /// PRIE-U.
        Formula => "formula",
    }
}

record! {
    /// Exponents of PRIE-U; the first four sum to 1.
    pub struct FormulaWeights {
        /// Wp.
        pub propensity_weight: f64 => "propensityWeight" = 0.0,
        /// Wr.
        pub relevance_weight: f64 => "relevanceWeight" = 0.0,
        /// Wi.
        pub impact_weight: f64 => "impactWeight" = 0.0,
        /// We.
        pub emphasis_weight: f64 => "emphasisWeight" = 0.0,
        /// Wu, 0–2.
        pub uplift_weight: f64 => "upliftWeight" = 0.0,
        /// τ that counts as 1 after scaling, > 0.
        pub uplift_scale: f64 => "upliftScale" = 0.1,
    }
}

record! {
    /// Weights of the signals of R; absent = off.
    pub struct Relevance {
        /// Active creative on the channel.
        pub channel_match: Option<f64> => "channelMatch" = None,
        /// Not shown lately.
        pub freshness: Option<f64> => "freshness" = None,
        /// Shared preferred segments.
        pub segment_match: Option<f64> => "segmentMatch" = None,
        /// Days in which freshness comes back by half, > 0.
        pub half_life_days: f64 => "halfLifeDays" = 7.0,
    }
}

record! {
    /// Weights of I's parts; they sum to 1.
    pub struct ImpactBlend {
        /// businessValue/100.
        pub business_value: f64 => "businessValue" = 0.0,
        /// margin over the largest.
        pub margin: f64 => "margin" = 0.0,
        /// revenueValue over the largest.
        pub revenue_value: f64 => "revenueValue" = 0.0,
    }
}

record! {
    /// Other weights or method where it matches: all given conditions must hold.
    pub struct ScoreOverride {
        /// The request's channel.
        pub channel: Option<Ref> => "channel" = None,
        /// The offer's category.
        pub category: Option<Ref> => "category" = None,
        /// The offer's productType.
        pub product_type: Option<String> => "productType" = None,
        /// Method; null = the node's.
        pub method: Option<ScoreMethod> => "method" = None,
        /// Model; null = the node's.
        pub model_key: Option<String> => "modelKey" = None,
        /// Weights; null = the node's.
        pub formula: Option<FormulaWeights> => "formula" = None,
    }
}

record! {
    /// Best first.
    pub struct Rank {
        /// The one method.
        pub method: RankMethod => "method" = RankMethod::TopN,
        /// How many remain, 1–1,000; the smaller of it and `limit` wins.
        pub max_candidates: u32 => "maxCandidates" = 50,
    }
}

choice! {
    /// Ranking methods.
    pub enum RankMethod {
        /// The n best by score.
        TopN => "topN",
    }
}

record! {
    /// How the slots of a request share the offers.
    pub struct Group {
        /// Who goes where.
        pub arbitration: Arbitration => "arbitration" = Arbitration::Greedy,
    }
}

choice! {
    /// How offers are shared out over slots.
    pub enum Arbitration {
        /// Slot by slot, each the best that is left.
        Greedy => "greedy",
        /// So that the scores of all slots together are highest.
        Optimal => "optimal",
    }
}

record! {
    /// Evaluates computed fields of returned offers.
    pub struct Compute {
        /// Which; empty = all of each offer's category.
        pub fields: Vec<String> => "fields" = Vec::new(),
    }
}

record! {
    /// Shape of the answer.
    pub struct Response {
        /// How much.
        pub response_format: ResponseFormat => "responseFormat" = ResponseFormat::Standard,
    }
}

choice! {
    /// How much an answer says.
    pub enum ResponseFormat {
        /// Everything.
        Standard => "standard",
        /// Ids, scores and ranks only.
        Compact => "compact",
    }
}
