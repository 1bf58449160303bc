//! `PeopleService`: passwords, second factors and logins.

use tidegate_core::access::{Verb, kinds};
use tidegate_proto::v1::{self, people_service_server::PeopleService};
use tidegate_service::{rpc, settings::SecondFactor};
use tonic::{Request, Response, Status};

use super::{Api, guard::Caller};
use crate::access::{Cause, Which};

impl Api {
    /// An administrator's call about one person.
    fn about(
        &self,
        request: &Request<impl Sized>,
        user: &str,
        verbs: &[Verb],
    ) -> Result<Caller, Status> {
        let caller = Caller::of(request);
        caller.may(kinds::USER, user, verbs)?;
        Ok(caller)
    }
}

#[tonic::async_trait]
impl PeopleService for Api {
    async fn get_login_terms(
        &self,
        _request: Request<v1::GetLoginTermsRequest>,
    ) -> Result<Response<v1::LoginTerms>, Status> {
        let second_factor = match self.access.second_factor() {
            SecondFactor::Off => v1::SecondFactor::Off,
            SecondFactor::Optional => v1::SecondFactor::Optional,
            SecondFactor::On => v1::SecondFactor::On,
        };
        Ok(Response::new(v1::LoginTerms {
            second_factor: second_factor.into(),
        }))
    }

    async fn change_password(
        &self,
        request: Request<v1::ChangePasswordRequest>,
    ) -> Result<Response<v1::ChangePasswordResponse>, Status> {
        let remote = rpc::remote(&request);
        self.access
            .change_password(request.into_inner(), remote)
            .await?;
        Ok(Response::new(v1::ChangePasswordResponse {}))
    }

    async fn begin_factor(
        &self,
        request: Request<v1::BeginFactorRequest>,
    ) -> Result<Response<v1::BeginFactorResponse>, Status> {
        let remote = rpc::remote(&request);
        let begun = self
            .access
            .begin_factor(request.into_inner(), remote)
            .await?;
        Ok(Response::new(begun))
    }

    async fn confirm_factor(
        &self,
        request: Request<v1::ConfirmFactorRequest>,
    ) -> Result<Response<v1::Factor>, Status> {
        let made = self.access.confirm_factor(request.into_inner()).await?;
        Ok(Response::new(made))
    }

    async fn remove_factor(
        &self,
        request: Request<v1::RemoveFactorRequest>,
    ) -> Result<Response<v1::RemoveFactorResponse>, Status> {
        let remote = rpc::remote(&request);
        self.access
            .remove_factor(request.into_inner(), remote)
            .await?;
        Ok(Response::new(v1::RemoveFactorResponse {}))
    }

    async fn list_own_factors(
        &self,
        request: Request<v1::ListOwnFactorsRequest>,
    ) -> Result<Response<v1::ListFactorsResponse>, Status> {
        let caller = Caller::of(&request);
        let (user, _) = caller.user()?;
        let factors = self.access.list_factors(&user.name).await?;
        Ok(Response::new(v1::ListFactorsResponse { factors }))
    }

    async fn reset_factors(
        &self,
        request: Request<v1::ResetFactorsRequest>,
    ) -> Result<Response<v1::User>, Status> {
        let user = &request.get_ref().user;
        let actor = self.about(&request, user, &[Verb::Update])?.actor();
        Ok(Response::new(
            self.access.reset_factors(&actor, user).await?,
        ))
    }

    async fn list_own_logins(
        &self,
        request: Request<v1::ListOwnLoginsRequest>,
    ) -> Result<Response<v1::ListLoginsResponse>, Status> {
        let caller = Caller::of(&request);
        let (user, _) = caller.user()?;
        let logins = self
            .access
            .list_logins(&user.name, user.login.as_ref())
            .await?;
        Ok(Response::new(v1::ListLoginsResponse { logins }))
    }

    async fn end_own_logins(
        &self,
        request: Request<v1::EndOwnLoginsRequest>,
    ) -> Result<Response<v1::EndLoginsResponse>, Status> {
        let caller = Caller::of(&request);
        let (user, expires_at) = caller.user()?;
        let v1::EndOwnLoginsRequest { id, all } = request.get_ref();
        let own = user.login.as_ref();
        let which = match own {
            _ if *all => Which::All,
            Some(own) if id.is_empty() || *id == own.id => Which::One {
                id: &own.id,
                known: Some((own.at, expires_at)),
            },
            // A certificate that tells of no login cannot be ended alone; there is nothing to end of it.
            None if id.is_empty() => {
                return Ok(Response::new(v1::EndLoginsResponse { ended: 0 }));
            }
            _ => Which::One { id, known: None },
        };
        let ended = self
            .access
            .end_logins(&user.name, &user.name, which, Cause::Owner)
            .await?;
        Ok(Response::new(v1::EndLoginsResponse { ended }))
    }

    async fn list_logins(
        &self,
        request: Request<v1::ListLoginsRequest>,
    ) -> Result<Response<v1::ListLoginsResponse>, Status> {
        let user = &request.get_ref().user;
        let verbs = [Verb::List, Verb::ReadNoSecrets];
        let caller = self.about(&request, user, &verbs)?;
        self.access.check_user_exists(user).await?;
        let own = caller.user().ok().and_then(|(user, _)| user.login.clone());
        let logins = self.access.list_logins(user, own.as_ref()).await?;
        Ok(Response::new(v1::ListLoginsResponse { logins }))
    }

    async fn end_logins(
        &self,
        request: Request<v1::EndLoginsRequest>,
    ) -> Result<Response<v1::EndLoginsResponse>, Status> {
        let v1::EndLoginsRequest { user, id } = request.get_ref();
        let actor = self.about(&request, user, &[Verb::Update])?.actor();
        self.access.check_user_exists(user).await?;
        let which = if id.is_empty() {
            Which::All
        } else {
            Which::One { id, known: None }
        };
        let ended = self
            .access
            .end_logins(&actor, user, which, Cause::Administrator)
            .await?;
        Ok(Response::new(v1::EndLoginsResponse { ended }))
    }

    async fn unlock_user(
        &self,
        request: Request<v1::UnlockUserRequest>,
    ) -> Result<Response<v1::UnlockUserResponse>, Status> {
        let user = &request.get_ref().user;
        let actor = self.about(&request, user, &[Verb::Update])?.actor();
        let was_locked_out = self.access.unlock_user(&actor, user).await?;
        Ok(Response::new(v1::UnlockUserResponse { was_locked_out }))
    }
}
