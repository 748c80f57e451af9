-- Pull requests that arrived, and what they are. One row per pull request.
-- @pr_id: Repository and number: acme/shop!46
-- @team_id: Team of its author, as users say; NULL where the author is not known as a user
-- @lines: Lines added and removed; NULL where the forge does not tell
-- @is_reviewed: Whether somebody other than its author approved it
-- @is_hotfix: Whether branch or title call it a hotfix
-- @failed_at: When the first deployment that carried it failed or was rolled back, UTC; NULL when none did
-- @kind: work; bot (opened by a program, or it only moves dependencies); revert (takes back what was merged before); reland (brings it back)
-- @reverted_at: Since when it is taken back, UTC; NULL when it is not, or has landed again
-- @reverted_share: The part of it that is taken back, by lines
-- @revert_method: How that was found
-- @lands_again: Pull request that it seems to bring back, though no word says so, and that counts nothing itself; NULL for others
-- A change counts once.
WITH people AS MATERIALIZED (
  SELECT lower(source_user) AS login, CASE WHEN min(user_id) = max(user_id) THEN min(user_id) END AS user_id
  FROM identities
  GROUP BY login
),
teams_of AS MATERIALIZED (
  SELECT login, nullif(team_id, '') AS team_id FROM people JOIN users USING (user_id)
  UNION ALL
  SELECT lower(user_id), nullif(any_value(team_id), '') FROM users
  WHERE lower(user_id) NOT IN (SELECT login FROM people)
  GROUP BY lower(user_id)
  HAVING count(DISTINCT team_id) = 1
),
arrivals AS MATERIALIZED (
  FROM pr_arrivals
),
undone AS MATERIALIZED (
  FROM pr_reverts
),
moves AS MATERIALIZED (
  SELECT pr_id AS target, reverted_by AS pr_id, event_at, lands, method FROM pr_revert_events, as_of WHERE event_at <= as_of
),
back AS MATERIALIZED (
  SELECT pr_id, reverted_at, share, method
  FROM undone, as_of
  WHERE reverted_at <= as_of AND (landed_again_at IS NULL OR landed_again_at > as_of)
  UNION ALL
  SELECT target, min(event_at) FILTER (NOT lands), 1, 'files'
  FROM moves WHERE target NOT IN (SELECT pr_id FROM undone)
  GROUP BY target
  HAVING bool_or(NOT lands) AND NOT bool_or(lands AND method <> 'files')
),
lost AS MATERIALIZED (
  SELECT pr_id
  FROM back LEFT JOIN arrivals USING (pr_id)
    JOIN scorecard_terms ON reverted_at >= applies_from AND reverted_at < applies_to
  WHERE share >= 0.9 AND (arrived_at IS NULL OR reverted_at <= arrived_at + INTERVAL 1 DAY * settle_days)
),
kinds AS MATERIALIZED (
  SELECT pr_id, bool_and(lands) AS lands
  FROM (
    SELECT pr_id, lands FROM moves WHERE NOT (lands AND method = 'files' AND target IN (FROM lost))
    UNION ALL
    SELECT reverted_by, false FROM pull_requests, as_of WHERE reverted_by IS NOT NULL AND reverted_at <= as_of
  )
  GROUP BY pr_id
),
landings AS (
  SELECT pr_id, min(target) AS lands_again FROM moves WHERE lands AND method = 'files' AND target IN (FROM lost) GROUP BY pr_id
)
SELECT
  pr_id, repo, author, team_id, created_at, merged_at, arrived_at, failed_at,
  additions + deletions AS lines,
  files,
  coalesce(approvals_by_others, 0) > 0 AS is_reviewed,
  coalesce(regexp_matches(head_branch, '^hot-?fix[-/_]', 'i') OR regexp_matches(title, '^\W{0,3}hot-?fix\b', 'i'), false)
    AS is_hotfix,
  CASE
    WHEN author_is_bot OR regexp_matches(head_branch, '^(dependabot|renovate|snyk|pyup)[-/]', 'i')
      OR regexp_matches(title, '^((chore|build|fix)\(deps(-dev)?\)|bump \S+ from \S+ to \S+)', 'i') THEN 'bot'
    WHEN NOT kinds.lands THEN 'revert'
    WHEN kinds.lands THEN 'reland'
    ELSE 'work'
  END AS kind,
  back.reverted_at,
  coalesce(share, 0) AS reverted_share,
  back.method AS revert_method,
  lands_again
FROM arrivals JOIN pull_requests USING (pr_id)
  LEFT JOIN teams_of ON teams_of.login = lower(author)
  LEFT JOIN kinds USING (pr_id)
  LEFT JOIN back USING (pr_id)
  LEFT JOIN landings USING (pr_id)
