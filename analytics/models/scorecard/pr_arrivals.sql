-- Where pull requests first arrived: their first deployment to production that succeeded and stayed. One row per merged pull request that has arrived.
-- @pr_id: Repository and number: acme/shop!46
-- @arrived_at: When it arrived, UTC: later deployments of it, to wherever, change nothing
-- @failed_at: When the first deployment that carried it failed or was rolled back, UTC; NULL when none did
-- One that only failed deployments carried arrives with the next good one of the same repository and environment, unless
-- that puts an earlier commit back.
WITH shipped AS MATERIALIZED (
  FROM production_deployments
),
next_good AS (
  SELECT bad.deployment_id, min(good.ended_at) AS arrived_at
  FROM shipped AS bad
    JOIN shipped AS good ON good.repo = bad.repo AND good.environment = bad.environment
      AND good.ended_at > bad.ended_at AND good.first_at >= bad.first_at
  WHERE good.is_eligible AND NOT bad.is_eligible
  GROUP BY bad.deployment_id
),
carried AS (
  SELECT
    pr_id, CASE WHEN is_eligible THEN ended_at ELSE arrived_at END AS arrived_at,
    CASE WHEN NOT is_eligible THEN ended_at END AS failed_at
  FROM deployment_prs JOIN shipped USING (deployment_id) LEFT JOIN next_good USING (deployment_id)
  UNION ALL
  SELECT pr_id, merged_at, NULL
  FROM pull_requests CROSS JOIN as_of JOIN scorecard_terms ON merged_at >= applies_from AND merged_at < applies_to
  WHERE list_contains(merged_repos, repo) AND merged_at <= as_of
)
SELECT pr_id, min(arrived_at) AS arrived_at, min(failed_at) AS failed_at
FROM carried SEMI JOIN (FROM pull_requests WHERE merged_at IS NOT NULL) AS merged USING (pr_id)
GROUP BY pr_id
HAVING arrived_at IS NOT NULL
