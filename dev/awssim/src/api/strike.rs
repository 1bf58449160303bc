//! What ordered faults do to a request and to its answer.

use std::time::Duration;

use super::error::ApiError;
use super::{Delivery, Reply, json, xml};
use crate::clock::moved;
use crate::faults::{DELAY_MS_MAX, FaultKind};

/// What an ordered fault does before an answer is looked for.
pub(super) async fn fail_or_wait(
    strike: Option<&FaultKind>,
    refused: impl FnOnce() -> ApiError,
) -> Result<(), ApiError> {
    match strike {
        Some(FaultKind::AccessDenied) => Err(refused()),
        Some(FaultKind::Error {
            status,
            code,
            message,
        }) => Err(ApiError::new(*status, code, message.clone()).verbatim()),
        Some(FaultKind::ExpiredToken) => Err(ApiError::expired_token()),
        Some(FaultKind::InternalFailure) => {
            Err(ApiError::internal("an internal error was ordered"))
        }
        Some(FaultKind::Throttling) => Err(ApiError::throttling()),
        Some(FaultKind::Delay { ms }) => {
            tokio::time::sleep(Duration::from_millis((*ms).min(DELAY_MS_MAX))).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What an ordered fault makes of an answer.
pub(super) fn damage(reply: &mut Reply, is_xml: bool, strike: Option<&FaultKind>) {
    match strike {
        Some(FaultKind::Body { text }) => reply.body.clone_from(text),
        Some(FaultKind::ClockSkew {
            seconds,
            told: true,
        }) => reply.date = moved(reply.date, *seconds),
        Some(FaultKind::MalformedField { element, text }) => {
            let damage = if is_xml { xml::damage } else { json::damage };
            reply.body = damage(&reply.body, element, text.as_deref());
        }
        Some(FaultKind::Reset) => reply.delivery = Delivery::Reset,
        Some(FaultKind::TruncatedBody) => reply.delivery = Delivery::Half,
        _ => {}
    }
}
