-- What the gateway has to know of the tracker, in one row.
WITH open_prs AS (
  FROM pr_evidence WHERE ended_at IS NULL AND branch IS NOT NULL
),
branches AS (
  -- As in attribute_branch: the work on a branch is for the pull request that was opened first.
  SELECT repo, branch, tickets
  FROM open_prs
  QUALIFY row_number() OVER (PARTITION BY repo, branch ORDER BY created_at, number) = 1
),
repos AS (
  SELECT repo, map_from_entries(list((branch, tickets) ORDER BY branch)) AS branches
  FROM branches WHERE len(tickets) > 0
  GROUP BY repo
),
shas AS (
  SELECT sha, open_prs.tickets
  FROM commits JOIN open_prs USING (pr_id)
  QUALIFY row_number() OVER (PARTITION BY sha ORDER BY created_at, number) = 1
),
unread AS (
  -- Also those of which tickets are here by chance: moved there from elsewhere, or read before the sync was stopped.
  SELECT project FROM projects WHERE synced_at IS NULL
  UNION
  SELECT named.project
  FROM (SELECT DISTINCT regexp_extract(ticket_id, '^(.+)[-#][0-9]+$', 1) AS project FROM tickets) AS named
  WHERE named.project <> '' AND named.project NOT IN (SELECT project FROM projects)
)
SELECT
  coalesce((SELECT epoch_us(max(synced_at)) FROM projects), 0) AS synced_us,
  (SELECT coalesce(map_from_entries(list((name, CASE status_category WHEN 'done' THEN 'closed' ELSE 'open' END))), MAP {})
    FROM ticket_names WHERE name = ticket_id) AS tickets,
  (SELECT coalesce(list(project ORDER BY project), []) FROM unread) AS partial,
  (SELECT coalesce(map_from_entries(list((name, ticket_id))), MAP {}) FROM ticket_names WHERE name <> ticket_id) AS aliases,
  (SELECT coalesce(map_from_entries(list((reference, tickets))), MAP {})
    FROM pr_evidence WHERE reference IS NOT NULL) AS pulls,
  (SELECT coalesce(map_from_entries(list((repo, branches))), MAP {}) FROM repos) AS branches,
  (SELECT coalesce(map_from_entries(list((sha, tickets))), MAP {}) FROM shas WHERE len(tickets) > 0) AS commits
