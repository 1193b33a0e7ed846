from celery import shared_task
from celery.utils.log import get_task_logger

logger = get_task_logger(__name__)


@shared_task(
    name="orders.expire",
    autoretry_for=(ValueError,),
    retry_backoff=True,
    retry_jitter=False,
    retry_kwargs={"max_retries": 2},
)
def expire(order):
    logger.info("expiring %s", order)
    if expire.request.retries < 1:
        raise ValueError(order)
    return order
