//! Second factors and logins of the cluster: a code is whatever the test says that it is now.

use std::collections::HashMap;

use tidegate_proto::v1::{self, SecondFactor, people_service_server::PeopleService};
use tonic::{Code, Request, Response, Status, async_trait};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{Answer, Fake, caller};

/// The secret by which a second factor that was begun is confirmed.
const ENROLMENT: &str = "enrolment-1";
/// The code that every app shows.
pub(crate) const CODE: &str = "123456";

pub(super) fn refuse(code: Code, reason: &str, message: &str) -> Status {
    let details =
        ErrorDetails::with_error_info(reason, "tidegate.dev", HashMap::<String, String>::new());
    Status::with_error_details(code, message, details)
}

fn unproven() -> Status {
    refuse(
        Code::Unauthenticated,
        "UNPROVEN",
        "wrong user name, password or code",
    )
}

impl Fake {
    /// Whether somebody may log in.
    pub(super) fn prove(&self, user: &str, password: &str, otp: &str) -> Result<(), Status> {
        let state = self.state();
        let right = state
            .passwords
            .get(user)
            .is_some_and(|known| known == password);
        let has_factor = state.factors.contains_key(user);
        if !right || (state.second_factor != SecondFactor::Off && has_factor && otp != CODE) {
            return Err(unproven());
        }
        Ok(())
    }

    /// What a login comes to.
    pub(super) fn prove_login(&self, request: &v1::LoginRequest) -> Result<(), Status> {
        self.prove(&request.user, &request.password, &request.otp)?;
        let mut state = self.state();
        state.clients.push(request.client.clone());
        if state.second_factor != SecondFactor::On || state.factors.contains_key(&request.user) {
            return Ok(());
        }
        match request.enrolment.as_str() {
            "" => Err(refuse(
                Code::FailedPrecondition,
                "SECOND_FACTOR_NEEDED",
                "this cluster asks for a second factor, and you have none yet",
            )),
            ENROLMENT if request.otp == CODE => {
                state.factors.insert(request.user.clone(), "app".to_owned());
                Ok(())
            }
            _ => Err(unproven()),
        }
    }

    fn proven(&self, proof: Option<v1::Proof>) -> Result<String, Status> {
        let proof = proof.unwrap_or_default();
        self.prove(&proof.user, &proof.password, &proof.otp)?;
        Ok(proof.user)
    }
}

#[async_trait]
impl PeopleService for Fake {
    async fn get_login_terms(
        &self,
        _: Request<v1::GetLoginTermsRequest>,
    ) -> Answer<v1::LoginTerms> {
        Ok(Response::new(v1::LoginTerms {
            second_factor: self.state().second_factor.into(),
        }))
    }

    async fn change_password(
        &self,
        request: Request<v1::ChangePasswordRequest>,
    ) -> Answer<v1::ChangePasswordResponse> {
        let request = request.into_inner();
        let user = self.proven(request.proof)?;
        self.state().passwords.insert(user, request.new_password);
        Ok(Response::new(v1::ChangePasswordResponse {}))
    }

    async fn begin_factor(
        &self,
        request: Request<v1::BeginFactorRequest>,
    ) -> Answer<v1::BeginFactorResponse> {
        let request = request.into_inner();
        self.proven(request.proof)?;
        self.state().begun = request.name.clone();
        Ok(Response::new(v1::BeginFactorResponse {
            enrolment: ENROLMENT.to_owned(),
            secret: "GEZDGNBVGY3TQOJQ".to_owned(),
            otpauth_url: "otpauth://totp/x:alice?secret=GEZDGNBVGY3TQOJQ".to_owned(),
            expires_at: None,
            name: request.name,
        }))
    }

    async fn confirm_factor(
        &self,
        request: Request<v1::ConfirmFactorRequest>,
    ) -> Answer<v1::Factor> {
        let request = request.into_inner();
        if request.otp != CODE {
            return Err(refuse(
                Code::FailedPrecondition,
                "WRONG_CODE",
                "the code is wrong",
            ));
        }
        let mut state = self.state();
        let name = state.begun.clone();
        state.factors.insert(request.user, name.clone());
        Ok(Response::new(v1::Factor {
            name,
            ..v1::Factor::default()
        }))
    }

    async fn remove_factor(
        &self,
        request: Request<v1::RemoveFactorRequest>,
    ) -> Answer<v1::RemoveFactorResponse> {
        let user = self.proven(request.into_inner().proof)?;
        self.state().factors.remove(&user);
        Ok(Response::new(v1::RemoveFactorResponse {}))
    }

    async fn list_own_factors(
        &self,
        request: Request<v1::ListOwnFactorsRequest>,
    ) -> Answer<v1::ListFactorsResponse> {
        let user = caller(&request)?;
        let state = self.state();
        let named = |name: &String| v1::Factor {
            name: name.clone(),
            ..v1::Factor::default()
        };
        Ok(Response::new(v1::ListFactorsResponse {
            factors: state
                .factors
                .get(&user.name)
                .map(named)
                .into_iter()
                .collect(),
        }))
    }

    async fn reset_factors(&self, _: Request<v1::ResetFactorsRequest>) -> Answer<v1::User> {
        Err(Status::unimplemented("reset_factors"))
    }

    async fn list_own_logins(
        &self,
        request: Request<v1::ListOwnLoginsRequest>,
    ) -> Answer<v1::ListLoginsResponse> {
        let user = caller(&request)?;
        Ok(Response::new(v1::ListLoginsResponse {
            logins: vec![v1::Login {
                id: "login-1".to_owned(),
                user: user.name,
                client: self.state().clients.last().cloned().unwrap_or_default(),
                current: true,
                ..v1::Login::default()
            }],
        }))
    }

    async fn end_own_logins(
        &self,
        request: Request<v1::EndOwnLoginsRequest>,
    ) -> Answer<v1::EndLoginsResponse> {
        caller(&request)?;
        let mut state = self.state();
        if state.ends_nothing {
            return Err(Status::unavailable("the state store is not available"));
        }
        state.ended.push(request.into_inner());
        Ok(Response::new(v1::EndLoginsResponse { ended: 2 }))
    }

    async fn list_logins(
        &self,
        _: Request<v1::ListLoginsRequest>,
    ) -> Answer<v1::ListLoginsResponse> {
        Err(Status::unimplemented("list_logins"))
    }

    async fn end_logins(&self, _: Request<v1::EndLoginsRequest>) -> Answer<v1::EndLoginsResponse> {
        Err(Status::unimplemented("end_logins"))
    }

    async fn unlock_user(
        &self,
        _: Request<v1::UnlockUserRequest>,
    ) -> Answer<v1::UnlockUserResponse> {
        Err(Status::unimplemented("unlock_user"))
    }
}
