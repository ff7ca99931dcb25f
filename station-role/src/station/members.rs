//! Who is let in: join tokens, memberships, revocation (R50a, R98).
use branchline_protocol::{
    charter::JoinToken,
    ids::NodeId,
    limits::{MACHINE_IDENTIFIER_BYTES_MAX, TOKENS_MAX},
    refusal::{Refusal, RefusalKind},
    time::Now,
};

use super::{
    machine::StationMachine,
    state::StationEvent,
    words::{MembershipTicket, StationOutput},
};

impl StationMachine {
    pub(super) fn on_token_create(&mut self, token: JoinToken) {
        match self.state.tokens.get(&token.identifier) {
            Some(known) if known.token == token => {}
            Some(_) => return self.attention(None, "two tokens have one identifier; make another".to_owned()),
            None if self.state.tokens.len() >= TOKENS_MAX => {
                return self.attention(None, format!("{TOKENS_MAX} join tokens exist already; no more are made"));
            }
            None => self.journal(StationEvent::TokenCreated { token: token.clone() }),
        }
        self.emit(StationOutput::ReleaseToken(Box::new(token)));
    }

    pub(super) fn on_token_use(
        &mut self,
        now: Now,
        identifier: [u8; 16],
        node: NodeId,
        machine_identifier: String,
        host_name: String,
    ) {
        match self.judge_token_use(now, identifier, node, &machine_identifier) {
            Err(refusal) => return self.emit(StationOutput::RefuseMembership(node, refusal)),
            // The answer to the first request was lost: the same use counts once.
            Ok(true) => {}
            Ok(false) => {
                let serial = self.state.last_serial + 1;
                let at = now.wall;
                self.journal(StationEvent::TokenUsed { at, identifier, node, machine_identifier, host_name, serial });
            }
        }
        self.release(now, node);
    }

    /// Whether the use was counted already, or why there is none.
    fn judge_token_use(
        &self,
        now: Now,
        identifier: [u8; 16],
        node: NodeId,
        machine_identifier: &str,
    ) -> Result<bool, Refusal> {
        let refuse = |kind, reason: String| Err(Refusal::new(kind, reason));
        let Some(record) = self.state.tokens.get(&identifier) else {
            return refuse(RefusalKind::Token, "this station made no such token; ask for a new one".to_owned());
        };
        if self.state.revoked.contains(&node) {
            let reason = format!("{node} was withdrawn; join with a new identity");
            return refuse(RefusalKind::NotAMember, reason);
        }
        if !(1..=MACHINE_IDENTIFIER_BYTES_MAX).contains(&machine_identifier.len()) {
            return refuse(RefusalKind::Malformed, "the machine identifier is empty or too long".to_owned());
        }
        if let Some(member) = self.state.members.get(&node) {
            if member.machine_identifier != machine_identifier {
                let reason = format!(
                    "{node} is machine {} already, and machine {machine_identifier} asks with the same identity; give \
                     the copy an identity of its own",
                    member.machine_identifier
                );
                return refuse(RefusalKind::DuplicateIdentity, reason);
            }
            if member.token == identifier {
                return Ok(true);
            }
        } else if self.state.members.len() >= self.setup.limits.members_max as usize {
            let reason = format!("site {} has its {} members already", self.setup.site, self.setup.limits.members_max);
            return refuse(RefusalKind::Busy, reason);
        }
        if now.wall >= record.token.expires_at {
            return refuse(RefusalKind::Token, "the token has expired; ask for a new one".to_owned());
        }
        if record.used >= record.token.uses {
            let reason = format!("the token was used {} times, as often as it may be; ask for a new one", record.used);
            return refuse(RefusalKind::Token, reason);
        }
        Ok(false)
    }

    pub(super) fn on_member_renew(&mut self, now: Now, node: NodeId) {
        if !self.state.members.contains_key(&node) {
            let reason = format!("{node} is no member of site {}; join with a token", self.setup.site);
            let refusal = Refusal::new(RefusalKind::NotAMember, reason);
            return self.emit(StationOutput::RefuseMembership(node, refusal));
        }
        let serial = self.state.last_serial + 1;
        self.journal(StationEvent::Renewed { node, serial });
        self.release(now, node);
    }

    fn release(&mut self, now: Now, node: NodeId) {
        let Some(member) = self.state.members.get(&node) else { return };
        let ticket = MembershipTicket {
            node,
            machine_identifier: member.machine_identifier.clone(),
            epoch: self.setup.epoch,
            serial: member.serial,
            issued_at: now.wall,
            expires_at: now.wall.after(self.setup.policies.membership_life_seconds),
        };
        self.emit(StationOutput::ReleaseMembership(ticket));
    }
}
