//! What a call that fails answers: Kafka Connect's `{"error_code": …, "message": …}`.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tidewater_broker::Error as LogError;
use tidewater_runtime::Error;
use tidewater_runtime::control::ControlError;
use utoipa::ToSchema;

/// Why a call failed.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// What was wrong, and what to do.
    pub message: String,
}

/// The body of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorMessage {
    /// The HTTP status again.
    #[schema(example = 404)]
    pub error_code: u16,
    /// What was wrong, and what to do.
    #[schema(example = "topic orders does not exist; create it first")]
    pub message: String,
}

/// `Result` with an [`ApiError`].
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

impl ApiError {
    /// An error of the caller.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// An error with any status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorMessage {
            error_code: self.status.as_u16(),
            message: self.message,
        };
        (self.status, Json(body)).into_response()
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Broker { source, .. } => log_status(source),
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Failed(error) => error.into(),
            error => {
                let status = StatusCode::from_u16(error.http_status());
                Self::new(
                    status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                    error.to_string(),
                )
            }
        }
    }
}

fn log_status(error: &LogError) -> StatusCode {
    match error {
        LogError::UnknownTopic { .. } | LogError::UnknownPartition { .. } | LogError::TopicDeleted { .. } => {
            StatusCode::NOT_FOUND
        }
        LogError::TopicExists { .. } | LogError::GroupNotEmpty { .. } => StatusCode::CONFLICT,
        LogError::InternalTopic { .. } => StatusCode::FORBIDDEN,
        LogError::InvalidTopic { .. }
        | LogError::InvalidOption { .. }
        | LogError::UnknownSetting { .. }
        | LogError::OffsetOutOfRange { .. }
        | LogError::KeyRequired { .. }
        | LogError::BatchTooLarge { .. } => StatusCode::BAD_REQUEST,
        LogError::DiskFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
        LogError::Closed => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}
