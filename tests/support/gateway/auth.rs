use serde_json::json;

use super::{Gateway, after_prefix, b64};

impl Gateway {
    /// Makes `root` with this password and switches authentication on. Calls need a token from then
    /// on: see `login`.
    #[track_caller]
    pub fn auth_enable(&self, root_password: &str) {
        self.user_add("root", root_password);
        self.role_add("root");
        self.user_grant_role("root", "root");
        self.ok("/v3/auth/enable", &json!({}));
    }

    #[track_caller]
    pub fn auth_disable(&self) {
        self.ok("/v3/auth/disable", &json!({}));
    }

    /// Logs in and uses the token from now on.
    #[track_caller]
    pub fn login(&self, user: &str, password: &str) {
        let body = json!({ "name": user, "password": password });
        // The old token must not spoil the request for a new one.
        self.set_token(None);
        let answer = self.ok("/v3/auth/authenticate", &body);
        self.set_token(answer["token"].as_str().map(str::to_owned));
    }

    #[track_caller]
    pub fn user_add(&self, user: &str, password: &str) {
        self.ok(
            "/v3/auth/user/add",
            &json!({ "name": user, "password": password }),
        );
    }

    #[track_caller]
    pub fn user_change_password(&self, user: &str, password: &str) {
        self.ok(
            "/v3/auth/user/changepw",
            &json!({ "name": user, "password": password }),
        );
    }

    #[track_caller]
    pub fn role_add(&self, role: &str) {
        self.ok("/v3/auth/role/add", &json!({ "name": role }));
    }

    #[track_caller]
    pub fn user_grant_role(&self, user: &str, role: &str) {
        self.ok(
            "/v3/auth/user/grant",
            &json!({ "user": user, "role": role }),
        );
    }

    #[track_caller]
    pub fn user_revoke_role(&self, user: &str, role: &str) {
        self.ok(
            "/v3/auth/user/revoke",
            &json!({ "name": user, "role": role }),
        );
    }

    /// Lets a role read and write, or only `READ` or `WRITE`, all keys with this prefix.
    #[track_caller]
    pub fn role_grant_prefix(&self, role: &str, prefix: &str, permission: &str) {
        let range = json!({
            "permType": permission, "key": b64(prefix), "range_end": b64(after_prefix(prefix)),
        });
        self.ok(
            "/v3/auth/role/grant",
            &json!({ "name": role, "perm": range }),
        );
    }
}
