-- What reverts take back, found. One row per revert and what it takes back.
-- @reverted_by: The pull request that takes back, or the sha of a commit that belongs to none
-- @target: The pull request that is taken back, or the sha of a commit that belongs to none
-- @method: How it was found: sha (of the commit it was merged with), commit (another one of its commits), pr (its number), title (quoted)
-- @is_reland: Whether it says to bring back
-- @reverted_at: When the revert was merged or committed, UTC
-- Of each revert, what its shas say, else its numbers, else the titles that it quotes. What was not merged takes nothing back, and what undoes a part of itself
-- undid no work that was there before.
WITH said AS (
  SELECT
    coalesce(of_commit.pr_id, reverts.reverting) AS reverted_by,
    reverts.repo, kind, reference, is_reland,
    CASE WHEN prs.pr_id IS NULL THEN reverts.reverted_at ELSE prs.merged_at END AS reverted_at
  FROM reverts
    LEFT JOIN pr_commits AS of_commit ON of_commit.sha = reverts.reverting AND of_commit.repo = reverts.repo
    LEFT JOIN pull_requests AS prs ON prs.pr_id = coalesce(of_commit.pr_id, reverts.reverting)
),
shas AS (
  SELECT repo, sha, pr_id AS target, CASE WHEN is_merge THEN 1 ELSE 2 END AS trust FROM pr_commits
  UNION ALL
  SELECT repo, sha, sha, 2 FROM commits ANTI JOIN pr_commits USING (repo, sha)
),
titles AS (
  SELECT
    repo, pr_id AS target, merged_at AS at, regexp_replace(title, '([ \t]*\(#[0-9]+\))+$', '') AS title, true AS is_own
  FROM pull_requests
  WHERE merged_at IS NOT NULL
  UNION ALL
  SELECT
    pr_commits.repo, pr_commits.pr_id, CASE WHEN prs.pr_id IS NULL THEN committed_at ELSE merged_at END, pr_commits.title, false
  FROM pr_commits JOIN commits USING (repo, sha) LEFT JOIN pull_requests AS prs ON prs.pr_id = pr_commits.pr_id
),
found AS (
  -- A sha may be shortened; one that then means several commits means none.
  SELECT said.*, min(shas.target) AS target, min(shas.trust) AS trust
  FROM said JOIN shas ON shas.repo = said.repo AND left(shas.sha, 7) = left(said.reference, 7)
    AND starts_with(shas.sha, said.reference)
  WHERE kind = 'sha'
  GROUP BY ALL
  HAVING count(DISTINCT shas.sha) = 1
  UNION ALL
  SELECT said.*, reference, 3
  FROM said
  WHERE kind = 'pr' AND reference IN (SELECT pr_id FROM pull_requests UNION SELECT pr_id FROM pr_commits)
  UNION ALL
  SELECT said.*, titles.target, 4
  FROM said JOIN titles ON titles.repo = said.repo
    AND left(trim(regexp_replace(titles.title, '[\x00-\x20\x7f]+', ' ', 'g')), 255) = said.reference
  WHERE kind = 'title' AND titles.target <> said.reverted_by AND titles.at <= said.reverted_at
  QUALIFY row_number() OVER (
    PARTITION BY said.reverted_by, said.reference ORDER BY is_own DESC, titles.at DESC, titles.target DESC
  ) = 1
),
earlier AS (
  SELECT found.*
  FROM found LEFT JOIN pull_requests AS prs ON prs.pr_id = found.target
  WHERE found.reverted_at IS NOT NULL AND target <> found.reverted_by
    AND (prs.pr_id IS NULL OR prs.merged_at <= found.reverted_at)
)
SELECT
  reverted_by, target, ['sha', 'commit', 'pr', 'title'][min(trust)] AS method, bool_or(is_reland) AS is_reland,
  min(reverted_at) AS reverted_at
FROM earlier
GROUP BY reverted_by, target
QUALIFY greatest(min(trust), 2) = greatest(min(min(trust)) OVER (PARTITION BY reverted_by), 2)
