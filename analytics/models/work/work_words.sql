-- Words of trackers and forges that decide what became of work. One row per kind and word.
-- @kind: not_delivered (resolutions of tickets that are done and delivered nothing), production (environments that count)
-- @word: The word, in lower case, with one form of apostrophes and blanks
SELECT DISTINCT kind, trim(lower(nfc_normalize(regexp_replace(replace(word, '’', ''''), '[\s_]+', ' ', 'g')))) AS word
FROM (
  SELECT 'not_delivered' AS kind, unnest([
    'not_planned', 'duplicate', 'won''t do', 'won''t fix', 'wont do', 'wontfix', 'cannot reproduce', 'can''t reproduce',
    'declined', 'incomplete', 'invalid', 'rejected', 'abandoned', 'not a bug', 'canceled', 'cancelled', 'obsolete'
  ]) AS word
  UNION ALL
  SELECT 'production' AS kind, unnest(['production', 'prod', 'live']) AS word
)
