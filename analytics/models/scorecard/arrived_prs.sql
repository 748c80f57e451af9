-- Pull requests that arrived, and what they are. One row per pull request.
-- @pr_id: Repository and number: acme/shop!46
-- @team_id: Team of its author, as users say; NULL where the author is not known as a user
-- @lines: Lines added and removed; NULL where the forge does not tell
-- @is_reviewed: Whether somebody other than its author approved it
-- @is_hotfix: Whether branch or title call it a hotfix
-- @kind: work; bot (opened by a program, or it only moves dependencies); revert (takes back what was merged before); reland (brings it back)
-- @reverted_at: Since when it is taken back, UTC; NULL when it is not, or has landed again
-- @reverted_share: The part of it that is taken back, by lines
-- @revert_method: How that was found
WITH people AS MATERIALIZED (
  SELECT source_user AS author, CASE WHEN min(user_id) = max(user_id) THEN min(user_id) END AS user_id
  FROM identities
  GROUP BY source_user
),
teams_of AS MATERIALIZED (
  SELECT author, nullif(team_id, '') AS team_id FROM people JOIN users USING (user_id)
  UNION ALL
  SELECT user_id, nullif(team_id, '') FROM users ANTI JOIN people ON people.author = users.user_id
),
moves AS MATERIALIZED (
  SELECT pr_id, bool_and(lands) AS lands
  FROM (
    SELECT reverted_by AS pr_id, lands FROM pr_revert_events, as_of WHERE event_at <= as_of
    UNION ALL
    SELECT reverted_by, false FROM pull_requests, as_of WHERE reverted_by IS NOT NULL AND reverted_at <= as_of
  )
  GROUP BY pr_id
),
back AS MATERIALIZED (
  SELECT pr_id, reverted_at, share, method
  FROM pr_reverts, as_of
  WHERE reverted_at <= as_of AND (landed_again_at IS NULL OR landed_again_at > as_of)
)
SELECT
  pr_id, repo, author, team_id, created_at, merged_at, arrived_at, has_failed,
  additions + deletions AS lines,
  files,
  coalesce(approvals_by_others, 0) > 0 AS is_reviewed,
  coalesce(regexp_matches(head_branch, '^hot-?fix[-/_]', 'i') OR regexp_matches(title, '^\W{0,3}hot-?fix\b', 'i'), false)
    AS is_hotfix,
  CASE
    WHEN author_is_bot OR regexp_matches(head_branch, '^(dependabot|renovate|snyk|pyup)[-/]', 'i')
      OR regexp_matches(title, '^(\w+\(deps(-dev)?\)|bump \S+ from \S+ to \S+)', 'i') THEN 'bot'
    WHEN NOT moves.lands THEN 'revert'
    WHEN moves.lands THEN 'reland'
    ELSE 'work'
  END AS kind,
  back.reverted_at,
  coalesce(share, 0) AS reverted_share,
  back.method AS revert_method
FROM pr_arrivals JOIN pull_requests USING (pr_id)
  LEFT JOIN teams_of USING (author)
  LEFT JOIN moves USING (pr_id)
  LEFT JOIN back USING (pr_id)
