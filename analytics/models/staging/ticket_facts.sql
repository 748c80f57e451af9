-- What trackers and forges know of tickets, and what follows from that alone. One row per ticket.
-- @ticket_id: Ticket by its present key
-- @judged_at: As of when it is judged whether nothing happened any more, UTC: as_of, or when its project was last read, if that was before
-- @outcome: What became of the ticket if no call for it came after touched_at
-- @touched_at: When the ticket or a pull request of it last changed, as far as is known, UTC
-- @delivered_at: When it was done and the last of its pull requests was merged, UTC, also if that was reverted; NULL when it was not delivered
-- @merged_at: When the last of its pull requests was merged, or landed again, UTC
-- @deployed_at: When the last of its merged pull requests was first in production, UTC; NULL until all of them were
-- @pull_requests: Number of its pull requests, without those that only take back, or bring back, another one of them
-- @merged_pull_requests: How many of them were merged
-- @pull_request_share: Sum of its parts of merged pull requests; one that is for several tickets counts once over all of them
-- @reverted_pull_requests: How many of the merged ones were reverted within 30 days and have not landed again
-- @reverted_days: Days from the merge to the first of its reverts; NULL when none was reverted
-- What is to be known of outcomes is in docs/outcomes.md.
WITH works AS MATERIALIZED (
  FROM pr_ticket_weights JOIN pr_fates USING (pr_id)
),
undoing AS (
  SELECT ticket_id, unnest(undone_by) AS pr_id FROM works
),
prs AS (
  SELECT
    ticket_id,
    count(*) AS pull_requests,
    count(merged_at) AS merged_pull_requests,
    coalesce(sum(weight) FILTER (WHERE merged_at IS NOT NULL), 0) AS pull_request_share,
    count(*) FILTER (WHERE reverted_at < merged_at + INTERVAL 30 DAY) AS reverted_pull_requests,
    min(date_diff('second', merged_at, reverted_at)) / 86400 AS reverted_days,
    bool_and(is_given_up) AS is_given_up,
    max(landed_at) AS merged_at,
    CASE WHEN bool_and(deployed_at IS NOT NULL) FILTER (WHERE merged_at IS NOT NULL) THEN max(deployed_at) END
      AS deployed_at,
    max(changed_at) AS changed_at
  FROM works ANTI JOIN undoing USING (ticket_id, pr_id)
  GROUP BY ticket_id
),
changes AS (
  SELECT ticket_id, max(changed_at) AS changed_at
  FROM ticket_statuses, as_of
  WHERE changed_at < as_of
  GROUP BY ticket_id
),
known AS (
  SELECT
    tickets.*,
    prs.* EXCLUDE (ticket_id, changed_at),
    tickets.status_category = 'done' AS is_done,
    undelivered.resolution IS NOT NULL AS is_void,
    least(as_of, projects.synced_at) AS judged_at,
    greatest(tickets.created_at, tickets.started_at, tickets.done_at, tickets.updated_at, changes.changed_at)
      AS ticket_touched_at,
    prs.changed_at AS pr_touched_at
  FROM as_of, tickets
    LEFT JOIN undelivered_resolutions AS undelivered ON undelivered.resolution = replace(lower(trim(tickets.resolution)), '’', '''')
    LEFT JOIN prs USING (ticket_id)
    LEFT JOIN changes USING (ticket_id)
    LEFT JOIN projects ON projects.project = regexp_extract(tickets.ticket_id, '^(.+)[-#][0-9]+$', 1)
)
SELECT
  ticket_id, project, type, title, created_at, started_at, CASE WHEN is_done THEN done_at END AS done_at, url,
  judged_at,
  CASE
    WHEN merged_pull_requests > 0 AND reverted_pull_requests = merged_pull_requests THEN 'reverted'
    WHEN is_done AND is_void THEN 'abandoned'
    WHEN is_done THEN 'delivered'
    WHEN is_given_up AND ticket_touched_at < judged_at - INTERVAL 30 DAY THEN 'abandoned'
    WHEN greatest(ticket_touched_at, pr_touched_at) < judged_at - INTERVAL 30 DAY THEN 'stale'
    ELSE 'in_progress'
  END AS outcome,
  greatest(ticket_touched_at, pr_touched_at) AS touched_at,
  CASE
    WHEN is_done AND NOT is_void THEN greatest(coalesce(done_at, updated_at), merged_at)
    WHEN merged_pull_requests > 0 AND reverted_pull_requests = merged_pull_requests THEN merged_at
  END AS delivered_at,
  merged_at,
  deployed_at,
  coalesce(pull_requests, 0) AS pull_requests,
  coalesce(merged_pull_requests, 0) AS merged_pull_requests,
  coalesce(pull_request_share, 0) AS pull_request_share,
  coalesce(reverted_pull_requests, 0) AS reverted_pull_requests,
  reverted_days
FROM known
