-- Tickets that the settings describe are not strange.
DELETE FROM strange WHERE ticket IN (SELECT unnest($own))
