//! Webhook endpoints: what a client asks for, how an attempt ends, and when the next one is due.
//! It must never know HTTP, addresses or a feed.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use std::{fmt, str::FromStr};
use uuid::Uuid;

use super::ids::{ClientNo, Malformed, PartitionId, TransactionId};
use super::time::Timestamp;

/// A webhook endpoint's id; later ones sort later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(pub Uuid);

impl EndpointId {
    /// Makes the id of an endpoint that begins at `at`.
    #[must_use]
    pub fn new(at: Timestamp, random: u64) -> EndpointId {
        // The same layout as every id of the house; an endpoint lives in no partition.
        EndpointId(TransactionId::new(at, PartitionId(0), random).0)
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EndpointId {
    type Err = Malformed;
    fn from_str(s: &str) -> Result<Self, Malformed> {
        s.parse::<TransactionId>()
            .map(|id| EndpointId(id.0))
            .map_err(|_| Malformed("an endpoint id is a UUID"))
    }
}

/// Which events of a transaction an endpoint gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryMode {
    /// A newer version replaces an older one that was not delivered.
    #[default]
    Latest,
    /// Each of them, in order.
    Every,
}

/// What the body of a delivery is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentType {
    /// `application/json`
    #[default]
    Json,
    /// `application/cloudevents+json`
    CloudEvents,
}

/// What a delivery shows beyond the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Include {
    /// The client's own pairs.
    pub metadata: bool,
    /// Where the order goes: personal data.
    pub ship_to: bool,
}

/// What a client asks of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSettings {
    /// An absolute http or https address, as the client wrote it.
    pub url: String,
    /// Types of event, each exact or ending in `.*`.
    pub types: Vec<String>,
    /// For people.
    pub description: String,
    /// Which events of a transaction.
    pub delivery: DeliveryMode,
    /// What the body is called.
    pub content_type: ContentType,
    /// What it shows beyond the event.
    pub include: Include,
}

/// Why nothing is sent to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DisabledReason {
    /// It answered 410.
    Gone,
    /// It answered with `webhook-delivery: disable`.
    Asked,
    /// Nothing was delivered for a day, and many events failed again and again.
    Failing,
}

impl DisabledReason {
    /// The reason's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DisabledReason::Gone => "gone",
            DisabledReason::Asked => "asked_to",
            DisabledReason::Failing => "failing",
        }
    }
}

/// The bytes that deliveries are signed with. They are never shown but where the contract says so.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Bytes of a fresh secret; Standard Webhooks asks for 24 to 64.
    pub const BYTES: usize = 32;

    /// A secret of these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes)
    }

    /// A fresh secret of four random numbers.
    #[must_use]
    pub fn random(numbers: [u64; 4]) -> Secret {
        Secret(numbers.iter().flat_map(|n| n.to_be_bytes()).collect())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Secrets of an endpoint: the one it has, and those before it that are still good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// The newest.
    pub current: Secret,
    /// Earlier ones, newest first, and until when each signs too.
    pub previous: Vec<(Secret, Timestamp)>,
}

impl Secrets {
    /// Earlier secrets that sign too; a rotation beyond them ends the oldest.
    pub const PREVIOUS_MAX: usize = 4;

    /// Only this one.
    #[must_use]
    pub fn new(current: Secret) -> Secrets {
        Secrets { current, previous: Vec::new() }
    }

    /// Puts `next` in place of the current one, which signs too until `until`.
    pub fn rotate(&mut self, next: Secret, until: Timestamp, now: Timestamp) {
        let before = std::mem::replace(&mut self.current, next);
        self.previous.insert(0, (before, until));
        self.previous.retain(|(_, until)| *until > now);
        self.previous.truncate(Self::PREVIOUS_MAX);
    }

    /// Those that sign now, the newest first.
    pub fn valid_at(&self, now: Timestamp) -> impl Iterator<Item = &Secret> {
        let previous = self.previous.iter().filter(move |(_, until)| *until > now).map(|(s, _)| s);
        std::iter::once(&self.current).chain(previous)
    }
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEndpoint {
    /// Its id.
    pub id: EndpointId,
    /// Whose feed it gets.
    pub client: ClientNo,
    /// What its client asked for.
    pub settings: EndpointSettings,
    /// What deliveries are signed with.
    pub secrets: Secrets,
    /// Whether anything is sent.
    pub standing: Standing,
    /// When it was made.
    pub created_at: Timestamp,
    /// Raised by every change: its actor looks again when it is another.
    pub revision: u64,
}

/// Whether anything is sent to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Yes.
    Enabled,
    /// No, and why not.
    Disabled(DisabledReason),
    /// It is deleted; nobody sees it any more, its rows are on their way out.
    Deleted,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The event's id.
    pub webhook_id: String,
    /// The event's type.
    pub event_type: String,
    /// What it was about.
    pub transaction_id: Option<TransactionId>,
    /// Counts from 1.
    pub attempt: u16,
    /// When it began.
    pub at: Timestamp,
    /// What was answered.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub duration_ms: u32,
    /// What it came to.
    pub outcome: AttemptOutcome,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The consumer has it.
    Delivered,
    /// The consumer answered otherwise.
    Refused,
    /// The consumer led elsewhere; nobody followed.
    Redirected,
    /// There was no answer in time.
    TimedOut,
    /// It could not be reached.
    Unreachable,
    /// Its address may not be called.
    AddressForbidden,
}

impl AttemptOutcome {
    /// All of them.
    pub const ALL: [AttemptOutcome; 6] = [
        AttemptOutcome::Delivered,
        AttemptOutcome::Refused,
        AttemptOutcome::Redirected,
        AttemptOutcome::TimedOut,
        AttemptOutcome::Unreachable,
        AttemptOutcome::AddressForbidden,
    ];

    /// Its name on the wire and in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AttemptOutcome::Delivered => "delivered",
            AttemptOutcome::Refused => "refused",
            AttemptOutcome::Redirected => "redirected",
            AttemptOutcome::TimedOut => "timed_out",
            AttemptOutcome::Unreachable => "unreachable",
            AttemptOutcome::AddressForbidden => "address_forbidden",
        }
    }
}

/// The longest that a consumer may put off the next attempt.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The pauses between attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Vec<Duration>);

impl Schedule {
    /// The longest pause of a breaker.
    const BREAKER_PAUSE_MAX: Duration = Duration::from_secs(300);

    /// A schedule of these pauses.
    #[must_use]
    pub fn new(pauses: Vec<Duration>) -> Schedule {
        Schedule(pauses)
    }

    /// When the attempt after the `failed`-th is due; `None` when there is none. `jitter` is a random
    /// number below [`Schedule::JITTER`]; a consumer that asks for more time than the schedule gives
    /// gets it, up to a day.
    #[must_use]
    pub fn next(
        &self,
        failed: u16,
        now: Timestamp,
        retry_after: Option<Duration>,
        jitter: u64,
    ) -> Option<Timestamp> {
        let pause = self.0.get(usize::from(failed.checked_sub(1)?))?;
        let own = Self::jittered(*pause, jitter);
        Some(now.after(own.max(retry_after.map_or(Duration::ZERO, Self::granted))))
    }

    /// How long a consumer is left alone that asks for this: a day at most.
    #[must_use]
    pub fn granted(asked: Duration) -> Duration {
        asked.min(RETRY_AFTER_MAX)
    }

    /// The bound of the random numbers that pauses are spread by: steps of a ten-thousandth.
    pub const JITTER: u64 = 4_001;

    /// A pause, a fifth shorter to a fifth longer.
    fn jittered(pause: Duration, jitter: u64) -> Duration {
        let share = 8_000 + u32::try_from(jitter.min(Self::JITTER - 1)).unwrap_or(0);
        pause.saturating_mul(share) / 10_000
    }

    /// The breaker's first pause, and the next after each failed try.
    #[must_use]
    pub fn breaker_pause(&self, last: Option<Duration>) -> Duration {
        let next = match last {
            None => self.0.first().copied().unwrap_or(Duration::from_secs(5)),
            Some(last) => last.saturating_mul(2),
        };
        next.min(Self::BREAKER_PAUSE_MAX)
    }
}

/// How an endpoint has fared since its last success; it ends what fails for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fortune {
    /// When something was last delivered, or the endpoint was enabled.
    pub success_at: Timestamp,
    /// Events since then that failed a fourth time.
    pub hopeless: u32,
}

impl Fortune {
    /// Without a success for this long an endpoint may be disabled.
    const PATIENCE: Duration = Duration::from_secs(24 * 3_600);
    /// And with so many events past [`Fortune::ATTEMPTS`].
    const HOPELESS_MAX: u32 = 20;
    /// The attempt that an event must have failed.
    const ATTEMPTS: u16 = 4;

    /// A fresh start.
    #[must_use]
    pub fn new(now: Timestamp) -> Fortune {
        Fortune { success_at: now, hopeless: 0 }
    }

    /// An event's `attempt`-th attempt failed.
    pub fn failed(&mut self, attempt: u16) {
        if attempt == Self::ATTEMPTS {
            self.hopeless = self.hopeless.saturating_add(1);
        }
    }

    /// True when the endpoint is to be disabled.
    #[must_use]
    pub fn is_hopeless(&self, now: Timestamp) -> bool {
        self.hopeless >= Self::HOPELESS_MAX && now.since(self.success_at) >= Self::PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn each_pause_stands_before_its_attempt_and_is_spread_by_a_fifth() {
        let schedule = Schedule::new(vec![seconds(5), seconds(30)]);
        let middle = Schedule::JITTER / 2;
        assert_eq!(schedule.next(1, NOW, None, middle), Some(NOW.after(seconds(5))));
        assert_eq!(schedule.next(2, NOW, None, middle), Some(NOW.after(seconds(30))));
        assert_eq!(schedule.next(3, NOW, None, middle), None);
        assert_eq!(schedule.next(1, NOW, None, 0), Some(NOW.after(seconds(4))));
        assert_eq!(schedule.next(1, NOW, None, Schedule::JITTER - 1), Some(NOW.after(seconds(6))));
        assert_eq!(schedule.next(1, NOW, None, u64::MAX), Some(NOW.after(seconds(6))));
    }

    #[test]
    fn a_consumer_may_ask_for_more_time_but_not_for_less_and_for_a_day_at_most() {
        let schedule = Schedule::new(vec![seconds(30)]);
        let due = |asked| schedule.next(1, NOW, Some(asked), Schedule::JITTER / 2);
        assert_eq!(due(seconds(90)), Some(NOW.after(seconds(90))));
        assert_eq!(due(seconds(1)), Some(NOW.after(seconds(30))));
        assert_eq!(due(seconds(1_000_000_000)), Some(NOW.after(24 * HOUR)));
    }

    #[test]
    fn the_breaker_doubles_its_pause_up_to_five_minutes() {
        let schedule = Schedule::new(vec![seconds(100)]);
        let first = schedule.breaker_pause(None);
        let second = schedule.breaker_pause(Some(first));
        let third = schedule.breaker_pause(Some(second));
        assert_eq!([first, second, third], [seconds(100), seconds(200), seconds(300)]);
    }

    #[test]
    fn an_endpoint_is_given_up_after_a_day_and_twenty_events() {
        let mut fortune = Fortune::new(NOW);
        for _ in 0..19 {
            (1..=11).for_each(|attempt| fortune.failed(attempt));
        }
        assert!(!fortune.is_hopeless(NOW.after(100 * HOUR)), "nineteen events");
        (1..=3).for_each(|attempt| fortune.failed(attempt));
        assert!(!fortune.is_hopeless(NOW.after(100 * HOUR)), "the twentieth failed three times");
        fortune.failed(4);
        assert!(!fortune.is_hopeless(NOW.after(23 * HOUR)));
        assert!(fortune.is_hopeless(NOW.after(24 * HOUR)));
    }

    #[test]
    fn secrets_sign_until_their_time_and_a_handful_at_most() {
        let secret = |n: u64| Secret::random([n; 4]);
        let mut secrets = Secrets::new(secret(0));
        for n in 1..=9 {
            secrets.rotate(secret(n), NOW.after(seconds(n)), NOW);
        }
        let valid: Vec<_> = secrets.valid_at(NOW).cloned().collect();
        assert_eq!(valid, [9, 8, 7, 6, 5].map(secret));
        let later: Vec<_> = secrets.valid_at(NOW.after(seconds(7))).cloned().collect();
        assert_eq!(later, [9, 8, 7].map(secret), "a secret is good before its end and not at it");
        assert_eq!(format!("{secrets:?}").matches("hidden").count(), 5);
    }
}
