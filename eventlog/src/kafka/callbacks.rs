//! What librdkafka says outside of answers: its log, and why connections fail.
//!
//! Its log goes to ours at DEBUG only, as it repeats itself with every attempt to connect; what a person must know is said
//! once, by whoever watches the brokers. The reason of the last failed connection is kept for that.

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// Why a connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectionFailure {
    pub code: Code,
    pub reason: String,
}

impl ConnectionFailure {
    /// Whether trying again has no use: the broker was reached, and refuses us or is refused by us.
    pub fn is_final(&self) -> bool {
        matches!(self.code, Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL)
    }
}

/// The callbacks of one client.
#[derive(Default)]
pub(super) struct Callbacks {
    last_failure: Mutex<Option<ConnectionFailure>>,
}

impl Callbacks {
    pub fn last_failure(&self) -> Option<ConnectionFailure> {
        self.last_failure.lock().clone()
    }

    pub fn forget_failure(&self) {
        *self.last_failure.lock() = None;
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        tracing::debug!(target: "librdkafka", %code, reason);
        let says_more = match code {
            Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL => true,
            Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut => true,
            // Follows the reasons of single connections and only counts them.
            Code::AllBrokersDown => self.last_failure.lock().is_none(),
            _ => false,
        };
        if says_more {
            *self.last_failure.lock() = Some(ConnectionFailure { code, reason: reason.to_owned() });
        }
    }
}

impl ConsumerContext for Callbacks {}
