//! Logins and second factors, as administrators see them.

use tidegate_proto::v1::{self, people_service_server::PeopleService};
use tonic::{Request, Response, Status, async_trait};

use super::{Answer, Fake};

fn not_for_administrators<T>() -> Answer<T> {
    Err(Status::permission_denied("people only"))
}

#[async_trait]
impl PeopleService for Fake {
    async fn get_login_terms(
        &self,
        _: Request<v1::GetLoginTermsRequest>,
    ) -> Answer<v1::LoginTerms> {
        not_for_administrators()
    }

    async fn change_password(
        &self,
        _: Request<v1::ChangePasswordRequest>,
    ) -> Answer<v1::ChangePasswordResponse> {
        not_for_administrators()
    }

    async fn begin_factor(
        &self,
        _: Request<v1::BeginFactorRequest>,
    ) -> Answer<v1::BeginFactorResponse> {
        not_for_administrators()
    }

    async fn confirm_factor(&self, _: Request<v1::ConfirmFactorRequest>) -> Answer<v1::Factor> {
        not_for_administrators()
    }

    async fn remove_factor(
        &self,
        _: Request<v1::RemoveFactorRequest>,
    ) -> Answer<v1::RemoveFactorResponse> {
        not_for_administrators()
    }

    async fn list_own_factors(
        &self,
        _: Request<v1::ListOwnFactorsRequest>,
    ) -> Answer<v1::ListFactorsResponse> {
        not_for_administrators()
    }

    async fn reset_factors(&self, request: Request<v1::ResetFactorsRequest>) -> Answer<v1::User> {
        let name = request.into_inner().user;
        let mut state = self.state();
        let user = state
            .users
            .get_mut(&name)
            .ok_or_else(|| Status::not_found(format!("no user `{name}`")))?;
        user.second_factors = 0;
        Ok(Response::new(user.clone()))
    }

    async fn list_own_logins(
        &self,
        _: Request<v1::ListOwnLoginsRequest>,
    ) -> Answer<v1::ListLoginsResponse> {
        not_for_administrators()
    }

    async fn end_own_logins(
        &self,
        _: Request<v1::EndOwnLoginsRequest>,
    ) -> Answer<v1::EndLoginsResponse> {
        not_for_administrators()
    }

    async fn list_logins(
        &self,
        request: Request<v1::ListLoginsRequest>,
    ) -> Answer<v1::ListLoginsResponse> {
        let name = request.into_inner().user;
        let mut logins = self.state().logins.clone();
        logins.retain(|login| login.user == name);
        Ok(Response::new(v1::ListLoginsResponse { logins }))
    }

    async fn end_logins(
        &self,
        request: Request<v1::EndLoginsRequest>,
    ) -> Answer<v1::EndLoginsResponse> {
        let v1::EndLoginsRequest { user, id } = request.into_inner();
        let mut state = self.state();
        let before = state.logins.len();
        state
            .logins
            .retain(|login| login.user != user || !(id.is_empty() || login.id == id));
        let ended = u32::try_from(before - state.logins.len()).unwrap();
        if ended == 0 && !id.is_empty() {
            return Err(Status::not_found(format!("no login `{id}`")));
        }
        Ok(Response::new(v1::EndLoginsResponse { ended }))
    }

    async fn unlock_user(
        &self,
        request: Request<v1::UnlockUserRequest>,
    ) -> Answer<v1::UnlockUserResponse> {
        let name = request.into_inner().user;
        let mut state = self.state();
        let user = state
            .users
            .get_mut(&name)
            .ok_or_else(|| Status::not_found(format!("no user `{name}`")))?;
        Ok(Response::new(v1::UnlockUserResponse {
            was_locked_out: user.locked_out_until.take().is_some(),
        }))
    }
}
