"""Scenes with classes, written as COCO, PASCAL VOC, ADE20K or Cityscapes trees, each exactly as people download them."""
