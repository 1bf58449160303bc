//! Messages that cannot be decoded are their sender's fault, and are answered so.
//!
//! tonic answers them as `INTERNAL`, as if this service had failed, with a text that names the field. Here that becomes
//! `INVALID_ARGUMENT` with a reason: for methods with one request by the guard, which sees the whole answer, for streams
//! by [`received`], which every one of them reads with.

use tonic::{Code, Status, Streaming, body::Body};

use super::status::refuse;

/// What tonic's text begins with.
const UNDECODABLE: &str = "failed to decode Protobuf message";

/// The next message of a stream; `None` at its end.
pub(super) async fn received<M>(messages: &mut Streaming<M>) -> Result<Option<M>, Status> {
    messages.message().await.map_err(explained)
}

/// An answer, with the sender's fault told as such.
pub(super) fn answered(answer: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(answer.headers()) {
        Some(status) if is_undecodable(&status) => explained(status).into_http(),
        _ => answer,
    }
}

fn is_undecodable(status: &Status) -> bool {
    status.code() == Code::Internal && status.message().starts_with(UNDECODABLE)
}

fn explained(status: Status) -> Status {
    if !is_undecodable(&status) {
        return status;
    }
    let why = status.message().trim_start_matches(UNDECODABLE);
    let message = format!("the message cannot be decoded{why}");
    refuse(Code::InvalidArgument, "MALFORMED", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_decoded_is_the_sender_s_fault_and_names_its_field() {
        // As the decoder of messages says it.
        let said = "failed to decode Protobuf message: User.name: invalid wire type";
        let told = answered(Status::internal(said).into_http());
        let told = Status::from_header_map(told.headers()).unwrap();
        assert_eq!(told.code(), Code::InvalidArgument);
        assert_eq!(
            told.message(),
            "the message cannot be decoded: User.name: invalid wire type"
        );
        let ours = answered(Status::internal("the disk is gone").into_http());
        let ours = Status::from_header_map(ours.headers()).unwrap();
        assert_eq!(ours.code(), Code::Internal);
    }
}
