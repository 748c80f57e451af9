-- Tickets as the rules of waste see them: what became of them and of their pull requests. One row per ticket.
-- @ticket_id: Ticket by its present key
-- @is_delivered: Whether it is done, and its resolution does not say that it was given up
-- @is_cancelled: Whether it is done, and its resolution says that it was given up
-- @done_at: When it was done or cancelled, UTC
-- @is_reopened: Whether it was opened again; NULL where that is not known
-- @has_open_pr: Whether a pull request of it is open
-- @merged_prs: Number of its merged pull requests
-- @deployed_at: When the last of its merged pull requests was first in production, UTC
-- @type: Kind of ticket, in small letters
-- @is_closed_by_bot: Whether a program closed it
-- @people: Those whose ticket it is, as tracker and forge call them: creator, assignee, closer, authors of its pull requests
WITH prs AS (
  SELECT
    ticket_id,
    count(*) FILTER (prs.merged_at IS NULL AND prs.closed_at IS NULL) AS open_prs,
    count(prs.merged_at) AS merged_prs,
    list(DISTINCT author) FILTER (author IS NOT NULL AND NOT coalesce(author_is_bot, false)) AS authors,
    max(deployed.finished_at) AS deployed_at
  FROM pr_ticket_weights
    JOIN pull_requests AS prs USING (pr_id)
    LEFT JOIN (
      -- Later deployments contain it, too.
      SELECT pr_id, min(finished_at) AS finished_at
      FROM deployment_prs
        JOIN deployments USING (deployment_id)
        SEMI JOIN environments ON environments.environment = lower(trim(deployments.environment))
      GROUP BY pr_id
    ) AS deployed USING (pr_id)
  GROUP BY ticket_id
)
SELECT
  tickets.ticket_id,
  lower(trim(tickets.type)) AS type,
  coalesce(tickets.status_category = 'done', false) AND undelivered.resolution IS NULL AS is_delivered,
  coalesce(tickets.status_category = 'done', false) AND undelivered.resolution IS NOT NULL AS is_cancelled,
  tickets.done_at,
  tickets.reopened_count > 0 AS is_reopened,
  coalesce(prs.open_prs, 0) > 0 AS has_open_pr,
  coalesce(prs.merged_prs, 0) AS merged_prs,
  prs.deployed_at,
  coalesce(regexp_matches(lower(closer), '\[bot\]$|\b(bot|actions|automation)\b'), false) AS is_closed_by_bot,
  list_distinct(list_filter(
    [creator, assignee, CASE WHEN NOT is_closed_by_bot THEN closer END], lambda p: p IS NOT NULL
  ) || coalesce(authors, [])) AS people
FROM tickets
  LEFT JOIN undelivered_resolutions AS undelivered
    ON undelivered.resolution = replace(lower(trim(tickets.resolution)), '’', '''')
  LEFT JOIN prs USING (ticket_id)
