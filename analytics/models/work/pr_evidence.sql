-- What pull requests say about work on them. One row per pull request.
-- @pr_id: Repository and number: acme/shop!46
-- @repo: Repository
-- @number: Its number there
-- @branch: Branch with its commits; NULL where that branch says nothing: main, develop and the like, or the one that it is to be merged into
-- @created_at: When it was opened, UTC
-- @ended_at: When it was merged or closed, UTC; NULL while it is open
-- @reference: What #46 means, where issues and pull requests share their numbers: acme/shop#46; NULL elsewhere
-- @tickets: Its tickets by their present keys, the best founded first; a mere mention does not count
WITH named AS (
  SELECT pr_id, coalesce(names.ticket_id, pr_tickets.ticket_id) AS ticket_id,
    min(list_position(['tracker', 'title', 'branch', 'body_close', 'commit'], source)) AS trust
  FROM pr_tickets LEFT JOIN ticket_names AS names ON names.name = pr_tickets.ticket_id
  WHERE source <> 'body_mention'
  GROUP BY ALL
),
by_pr AS (
  SELECT pr_id, list(ticket_id ORDER BY trust, ticket_id) AS tickets FROM named GROUP BY pr_id
)
SELECT
  pr_id,
  repo,
  number,
  CASE
    WHEN head_branch <> coalesce(base_branch, '')
      AND lower(head_branch) NOT IN ('main', 'master', 'dev', 'develop', 'development', 'staging', 'trunk', 'head')
    THEN head_branch
  END AS branch,
  created_at,
  coalesce(merged_at, closed_at) AS ended_at,
  -- GitHub, Gitea and Forgejo; GitLab's (…/-/merge_requests/46) and Bitbucket's have numbers of their own.
  CASE WHEN regexp_matches(url, '^https?://[^/]+/[^/]+/[^/]+/pulls?/[0-9]+') THEN concat(repo, '#', number) END AS reference,
  coalesce(tickets, []) AS tickets
FROM pull_requests LEFT JOIN by_pr USING (pr_id)
