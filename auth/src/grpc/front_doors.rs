//! `FrontDoorService`: what people may choose from before they open a database.

use tidegate_proto::v1::{self, front_door_service_server::FrontDoorService};
use tonic::{Request, Response, Status};

use super::{Api, guard::Caller};

#[tonic::async_trait]
impl FrontDoorService for Api {
    async fn describe_choices(
        &self,
        request: Request<v1::DescribeChoicesRequest>,
    ) -> Result<Response<v1::DescribeChoicesResponse>, Status> {
        let caller = Caller::of(&request);
        let (user, _) = caller.user()?;
        let choices = self
            .access
            .choices(&user.subject(), &request.get_ref().database)?;
        Ok(Response::new(choices))
    }
}
