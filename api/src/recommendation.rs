//! `recommendationId`: what was decided, in the hands of the client (domain.md §5). A decision that takes nothing need not be
//! stored, because its id says all that an outcome needs; the MAC says that it was us who decided it.
//!
//! Layout before base64url: format (1 byte), key id (4, big endian), [`Token`] by `engine::codec`, MAC (16).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bincode::{Decode, Encode};
use hmac::{Hmac, KeyInit, Mac};
use proffer_engine::codec;
use proffer_engine::decide::decision::{Ghost, PropositionKind};
use proffer_engine::keys::{ChannelKey, CreativeKey, CustomerId, FlowKey, OfferKey, PlacementKey, Revision, TenantId};
use proffer_engine::profile::command::DecisionId;
use proffer_engine::time::Timestamp;
use sha2::Sha256;

use crate::limits::RECOMMENDATION_ID_BYTES_MAX;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 5;
const MAC_BYTES: usize = 16;

/// What an id says.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Token {
    /// Whose catalogue.
    pub tenant: TenantId,
    /// [`customer_hash`] of whom it was decided for.
    pub customer: u128,
    /// The decision, as the shard knows it.
    pub decision: DecisionId,
    /// Cluster time of the decision.
    pub at: Timestamp,
    /// First instant at which outcomes are no longer taken.
    pub expires_at: Timestamp,
    /// Catalogue revision.
    pub revision: Revision,
    /// Flow and version; `None` for the base flow.
    pub flow: Option<(FlowKey, u32)>,
    /// The experiment's arm.
    pub arm: TokenArm,
    /// By rank from 1.
    pub propositions: Vec<TokenProposition>,
    /// What was withheld.
    pub ghosts: Vec<Ghost>,
}

/// Place in the flow's experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TokenArm {
    /// The flow runs none.
    None,
    /// Got what was decided.
    Treated,
    /// Held out.
    Control,
}

/// One proposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TokenProposition {
    /// What.
    pub offer: OfferKey,
    /// Its content, or NONE.
    pub creative: CreativeKey,
    /// Channel, or NONE.
    pub channel: ChannelKey,
    /// Placement, or NONE.
    pub placement: PlacementKey,
    /// How it came in.
    pub kind: PropositionKind,
}

/// Stored form: an id must be readable for its whole life, also by the next releases.
#[derive(Encode, Decode)]
enum Stored {
    V1(Token),
}

/// Why an id is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not made here, made for someone else, or altered.
    #[error("is not a recommendationId of this customer")]
    Foreign,
    /// Its time has passed.
    #[error("has expired")]
    Expired,
}

/// A secret that signs ids.
#[derive(Clone)]
pub struct TokenKey {
    id: u32,
    mac: Hmac<Sha256>,
}

impl TokenKey {
    /// The key with this id; ids tell the keys of a rotation apart.
    pub fn new(id: u32, secret: &[u8; 32]) -> Self {
        TokenKey { id, mac: Hmac::new_from_slice(secret).expect("HMAC takes keys of any length") }
    }

    fn sign(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = self.mac.clone();
        mac.update(bytes);
        let whole = mac.finalize().into_bytes();
        std::array::from_fn(|index| whole[index])
    }

    fn verify(&self, bytes: &[u8], signature: &[u8]) -> bool {
        let mut mac = self.mac.clone();
        mac.update(bytes);
        mac.verify_truncated_left(signature).is_ok()
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The keys in force: one signs, all verify. Rotation puts a new one in front and keeps the old one for
/// `outcomeWindowDays`.
#[derive(Clone, Debug)]
pub struct TokenKeys {
    current: TokenKey,
    previous: Vec<TokenKey>,
}

impl TokenKeys {
    /// `current` signs; it and `previous` verify.
    pub fn new(current: TokenKey, previous: Vec<TokenKey>) -> Self {
        TokenKeys { current, previous }
    }

    /// The id of `token`, at most [`RECOMMENDATION_ID_BYTES_MAX`] long for as many propositions as one answer can hold.
    pub fn seal(&self, token: Token) -> String {
        let mut bytes = Vec::with_capacity(256);
        bytes.push(FORMAT);
        bytes.extend(self.current.id.to_be_bytes());
        bytes.extend(codec::encode(&Stored::V1(token)));
        bytes.extend(self.current.sign(&bytes));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `bytes` with what says that we wrote them: key id before, MAC after.
    pub fn seal_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut sealed = self.current.id.to_be_bytes().to_vec();
        sealed.extend(bytes);
        sealed.extend(self.current.sign(&sealed));
        sealed
    }

    /// The bytes of what [`TokenKeys::seal_bytes`] wrote; `None` for anything else.
    pub fn open_bytes<'a>(&self, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (signed, signature) = sealed.split_at_checked(sealed.len().checked_sub(MAC_BYTES)?)?;
        let (key_id, bytes) = signed.split_at_checked(size_of::<u32>())?;
        let key_id = u32::from_be_bytes(key_id.try_into().ok()?);
        let mut keys = std::iter::once(&self.current).chain(&self.previous).filter(|key| key.id == key_id);
        keys.any(|key| key.verify(signed, signature)).then_some(bytes)
    }

    /// What `id` says, if we made it for this customer and it has not expired at `now`.
    ///
    /// # Errors
    /// Says nothing of what is wrong with a foreign id.
    pub fn open(&self, id: &str, tenant: &TenantId, customer: &CustomerId, now: Timestamp) -> Result<Token, Refused> {
        let token = self.verified(id).ok_or(Refused::Foreign)?;
        if token.tenant != *tenant || token.customer != customer_hash(customer) {
            return Err(Refused::Foreign);
        }
        if now >= token.expires_at { Err(Refused::Expired) } else { Ok(token) }
    }

    fn verified(&self, id: &str) -> Option<Token> {
        if id.len() > RECOMMENDATION_ID_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
        let (signed, signature) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        let (header, payload) = signed.split_at_checked(HEADER_BYTES)?;
        let (format, key_id) = header.split_first()?;
        let key_id = u32::from_be_bytes(key_id.try_into().ok()?);
        let keys = std::iter::once(&self.current).chain(&self.previous);
        let known = keys.filter(|key| key.id == key_id).any(|key| key.verify(signed, signature));
        if !known || *format != FORMAT {
            return None;
        }
        let Stored::V1(token) = codec::decode("recommendationId", payload).ok()?;
        Some(token)
    }
}

/// What an id holds in place of the customer's id.
pub fn customer_hash(customer: &CustomerId) -> u128 {
    xxhash_rust::xxh3::xxh3_128(customer.0.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::PROPOSITIONS_MAX;

    fn keys() -> TokenKeys {
        TokenKeys::new(TokenKey::new(2, &[2; 32]), vec![TokenKey::new(1, &[1; 32])])
    }

    fn token(propositions: usize) -> Token {
        let proposition = TokenProposition {
            offer: OfferKey(u32::MAX),
            creative: CreativeKey::NONE,
            channel: ChannelKey::NONE,
            placement: PlacementKey::NONE,
            kind: PropositionKind::Fallback,
        };
        Token {
            tenant: TenantId::new("default"),
            customer: customer_hash(&CustomerId::new("cust_42")),
            decision: DecisionId(u64::MAX),
            at: Timestamp(1_780_000_000_000),
            expires_at: Timestamp(1_790_000_000_000),
            revision: Revision(u64::MAX),
            flow: Some((FlowKey(u32::MAX), u32::MAX)),
            arm: TokenArm::Treated,
            propositions: vec![proposition; propositions],
            ghosts: Vec::new(),
        }
    }

    fn open(keys: &TokenKeys, id: &str) -> Result<Token, Refused> {
        keys.open(id, &TenantId::new("default"), &CustomerId::new("cust_42"), Timestamp(1_785_000_000_000))
    }

    #[test]
    fn an_id_opens_to_what_was_sealed() {
        assert_eq!(open(&keys(), &keys().seal(token(5))), Ok(token(5)));
    }

    #[test]
    fn an_id_of_the_previous_key_still_opens() {
        let old = TokenKeys::new(TokenKey::new(1, &[1; 32]), Vec::new()).seal(token(1));
        assert_eq!(open(&keys(), &old), Ok(token(1)));
        let gone = TokenKeys::new(TokenKey::new(0, &[0; 32]), Vec::new()).seal(token(1));
        assert_eq!(open(&keys(), &gone), Err(Refused::Foreign));
    }

    #[test]
    fn an_id_serves_its_tenant_and_customer_only_until_it_expires() {
        let id = keys().seal(token(1));
        let (tenant, customer) = (TenantId::new("default"), CustomerId::new("cust_42"));
        let early = Timestamp(1_785_000_000_000);
        assert_eq!(keys().open(&id, &TenantId::new("other"), &customer, early), Err(Refused::Foreign));
        assert_eq!(keys().open(&id, &tenant, &CustomerId::new("cust_43"), early), Err(Refused::Foreign));
        assert_eq!(keys().open(&id, &tenant, &customer, Timestamp(1_790_000_000_000)), Err(Refused::Expired));
    }

    #[test]
    fn the_largest_answer_fits_into_four_kibibytes() {
        let mut largest = token(PROPOSITIONS_MAX as usize);
        largest.tenant = TenantId::new("t".repeat(64));
        assert!(keys().seal(largest).len() <= RECOMMENDATION_ID_BYTES_MAX);
    }

    #[test]
    fn the_bytes_of_an_id_are_golden() {
        let small = Token { propositions: Vec::new(), flow: None, ..token(0) };
        let golden = "AQAAAAIAB2RlZmF1bHT-MtoMq3GhmuGeaNgcsUz7qf3___________0AEIngPAMAAP0A2KCIQQMAAP3__________wABAACMgJUYti4VTAyhXTyOs46f";
        assert_eq!(keys().seal(small), golden);
    }

    proptest! {
        #[test]
        fn one_flipped_bit_is_refused(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = URL_SAFE_NO_PAD.decode(keys().seal(token(2))).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(open(&keys(), &URL_SAFE_NO_PAD.encode(bytes)), Err(Refused::Foreign));
        }

        #[test]
        fn arbitrary_text_is_refused_without_a_panic(text in ".{0,200}") {
            prop_assert_eq!(open(&keys(), &text), Err(Refused::Foreign));
        }
    }
}
