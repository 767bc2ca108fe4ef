CREATE OR REPLACE FUNCTION note_job_retry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_retries (job_id, retried_as) VALUES (NEW.retry_of, NEW.id);
    RETURN NULL;
END $$;
