-- Pull requests that may have been reverted: the revert names nothing but one of their tickets, and changes files of theirs. One row per such pull request and revert.
-- @pr_id: Pull request that may have been taken back
-- @reverted_by: Pull request that says to revert something
-- @reverted_at: When that was merged, UTC
-- @ticket_id: Ticket that both are for
-- No evidence: neither outcomes nor costs count it.
SELECT DISTINCT ON (was.pr_id, back.pr_id)
  was.pr_id, back.pr_id AS reverted_by, back.merged_at AS reverted_at, weights.ticket_id
FROM reverts
  LEFT JOIN pr_commits AS of_commit ON of_commit.sha = reverts.reverting AND of_commit.repo = reverts.repo
  JOIN pull_requests AS back ON back.pr_id = coalesce(of_commit.pr_id, reverts.reverting)
  JOIN ticket_names AS names ON names.name = reverts.reference
  JOIN pr_ticket_weights AS weights USING (ticket_id)
  JOIN pull_requests AS was ON was.pr_id = weights.pr_id
WHERE reverts.kind = 'ticket' AND NOT reverts.is_reland
  AND was.repo = back.repo AND was.pr_id <> back.pr_id AND was.merged_at <= back.merged_at
  AND list_has_any(was.files, back.files)
  AND back.pr_id NOT IN (SELECT reverted_by FROM revert_targets)
ORDER BY was.pr_id, back.pr_id, weights.ticket_id
